"""`python -m index clusters`: look at a store of cluster maps and tend it.

Each command returns what to tell a person; `__main__` says it.
"""

import argparse
from collections.abc import Callable
from typing import Any

from index.clusters.pointer_moves import nothing_published
from index.clusters.store import ClusterPointer, ClusterStore, ListedMap
from index.errors import FaultyClusterMapError
from index.stores.address import FOLDER, open_cluster_store
from index.stores.options import add_store_options, store_meant

Command = Callable[[ClusterStore, argparse.Namespace], str]


def add_cluster_commands(commands: Any, count: Callable[[str], int]) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Describe `list`, `pin`, `unpin`, `rollback` and `prune`; `count` reads a number."""
    for command, (name, told) in HELP.items():
        parser = commands.add_parser(name, help=told, description=command.__doc__)
        parser.set_defaults(cluster_command=command)
        add_store_options(parser, "the maps", f"the maps lie in {FOLDER}/")
        if command in WITHOUT_VERSION:
            default = WITHOUT_VERSION[command]
            parser.add_argument(
                "version", nargs="?", metavar="VERSION", help=f"which one (default: {default})"
            )
        if command is prune:
            parser.add_argument(
                "--keep",
                type=count,
                default=3,
                metavar="COUNT",
                help="how many of the newest stay (default: 3)",
            )


def run_cluster_command(parsed: argparse.Namespace) -> str:
    """Open the store that is meant, and run a command on it."""
    meant = store_meant(parsed, "cluster maps")
    store = open_cluster_store(meant.url, meant.bundles / FOLDER, meant.namespace)
    command: Command = parsed.cluster_command
    return command(store, parsed)


def show(store: ClusterStore, _: argparse.Namespace) -> str:
    """List the cluster maps, oldest first. The current one is marked."""
    listed = store.listed()
    pointer, faults = _pointer_of(store)
    if not listed and not faults:
        raise nothing_published(store.place)
    return "\n".join([store.place, *(_line_of(one, pointer) for one in listed), *faults])


def _pointer_of(store: ClusterStore) -> tuple[ClusterPointer | None, list[str]]:
    """Return the pointer, or what is wrong with it: to mend it a version must be known."""
    try:
        return store.pointer(), []
    except FaultyClusterMapError as error:
        return None, [str(error)]


def pin(store: ClusterStore, parsed: argparse.Namespace) -> str:
    """Hold on to the current map, or make the one you name current and hold on to that.

    What is published meanwhile is stored, but does not become current.
    """
    pointer = store.pin(parsed.version)
    return f"{pointer.version} is current and pinned, until `clusters unpin`"


def unpin(store: ClusterStore, _: argparse.Namespace) -> str:
    """Let the next map that is published become current again."""
    return f"{store.unpin().version} is current, until another map is published"


def roll_back(store: ClusterStore, parsed: argparse.Namespace) -> str:
    """Make the map before the current one current, or the one you name.

    Done twice without a name it returns to where it began. A pin stays a pin; without one, the
    next map that is published becomes current.
    """
    pointer = store.roll_back(parsed.version)
    held = " (pinned)" if pointer.pinned else ""
    return f"current is now {pointer.version}{held}; before it {pointer.previous or 'none'}"


def prune(store: ClusterStore, parsed: argparse.Namespace) -> str:
    """Remove all but the newest maps. The current one and the one before it always stay."""
    doomed = store.prune(parsed.keep)
    return "\n".join(f"removed {version}" for version in doomed) or "nothing to remove"


HELP: dict[Command, tuple[str, str]] = {
    show: ("list", "list the maps; the current one is marked"),
    pin: ("pin", "hold on to a map, whatever is published"),
    unpin: ("unpin", "let what is published become current again"),
    roll_back: ("rollback", "make an older map current"),
    prune: ("prune", "remove old maps"),
}
WITHOUT_VERSION = {pin: "the current one", roll_back: "the one before"}


def _line_of(one: ListedMap, pointer: ClusterPointer | None) -> str:
    mark = "*" if one.is_current else " "
    told = f"{mark} {one.version}  {one.items:,} items  {one.level_1_codes:,} clusters  "
    return f"{told}{one.made_at}  {_standing(one, pointer)}"


def _standing(one: ListedMap, pointer: ClusterPointer | None) -> str:
    if one.is_current:
        return "current, pinned" if pointer and pointer.pinned else "current"
    if one.is_previous:
        return "the one before"
    return "stays" if one.expires_in_s is None else f"goes in {one.expires_in_s / 60:.0f} min"
