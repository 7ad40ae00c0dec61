"""`python -m index clusters` and `python -m index denylist`: look at these stores and change them.

Each command returns what to tell a person; `__main__` says it.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from index.cluster_map_registry import (
    FOLDER,
    ClusterMapRegistry,
    ClusterPointer,
    ListedMap,
    open_cluster_maps,
)
from index.denylist import FILE, ID_LENGTH, Denylist, DenylistStore, open_denylist
from index.errors import ConfigError, InvalidClusterMapError, NoDenylistError
from index.storage.address import (
    FILE_VARIABLE,
    NAMESPACE,
    NAMESPACE_VARIABLE,
    URL_VARIABLE,
    address_from,
    namespace_from,
)

ClusterCommand = Callable[[ClusterMapRegistry, argparse.Namespace], str]
DenyCommand = Callable[[DenylistStore, argparse.Namespace], str]


def add_cluster_commands(commands: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Describe `list`, `pin`, `unpin`, `rollback` and `prune`."""
    for name, (command, told) in CLUSTER_COMMANDS.items():
        parser = commands.add_parser(name, help=told, description=command.__doc__)
        parser.set_defaults(run=run_cluster_command, command=command)
        add_store_options(parser, "the maps", f"the maps lie in {FOLDER}/")
        if command in WITHOUT_VERSION:
            add_version_argument(parser, WITHOUT_VERSION[command])
        if command is prune:
            add_keep_option(parser)


def run_cluster_command(parsed: argparse.Namespace) -> str:
    """Open the store that is meant, and run a command on it."""
    url, bundles, namespace = store_of(parsed, "cluster maps")
    command: ClusterCommand = parsed.command
    return command(open_cluster_maps(url, bundles / FOLDER, namespace), parsed)


def add_deny_commands(commands: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Describe `show`, `list`, `set`, `add` and `remove`."""
    for name, (command, told) in DENY_COMMANDS.items():
        parser = commands.add_parser(name, help=told, description=command.__doc__)
        parser.set_defaults(run=run_deny_command, command=command)
        add_store_options(parser, "the list", f"the list is its file `{FILE}`")
        if command is not show_denylist:
            parser.add_argument(
                "--json-lines",
                action="store_true",
                help="each id as a JSON text, so that one with a line break in it survives",
            )
        if command in (set_ids, add_ids, remove_ids):
            parser.add_argument("ids", nargs="*", metavar="ID", help="an item id")
            parser.add_argument(
                "--file", metavar="FILE", help="a file of ids, one a line; - reads the input"
            )


def run_deny_command(parsed: argparse.Namespace) -> str:
    """Open the store that is meant, and run a command on it."""
    url, bundles, namespace = store_of(parsed, "denylist")
    command: DenyCommand = parsed.command
    return command(open_denylist(url, bundles / FILE, namespace), parsed)


def add_version_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Describe `VERSION`, which may be left out."""
    told = f"which one (default: {default})"
    parser.add_argument("version", nargs="?", metavar="VERSION", help=told)


def add_keep_option(parser: argparse.ArgumentParser) -> None:
    """Describe `--keep`."""
    told = "how many of the newest stay (default: 3)"
    parser.add_argument("--keep", type=_count, default=3, metavar="COUNT", help=told)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number, 0 or more")
    return int(text)


def show_maps(registry: ClusterMapRegistry, _: argparse.Namespace) -> str:
    """List the cluster maps, oldest first. The current one is marked."""
    listed, pointer, faults = registry.listed(), None, []
    try:
        pointer = registry.pointer()
    except InvalidClusterMapError as error:  # to mend it a version must be known
        faults = [str(error)]
    if not listed and not faults:
        raise registry.nothing_published()
    return "\n".join([registry.place, *(_line_of(one, pointer) for one in listed), *faults])


def pin(registry: ClusterMapRegistry, parsed: argparse.Namespace) -> str:
    """Hold on to the current map, or make the one you name current and hold on to that.

    What is published meanwhile is stored, but does not become current.
    """
    pointer = registry.pin(parsed.version)
    return f"{pointer.version} is current and pinned, until `clusters unpin`"


def unpin(registry: ClusterMapRegistry, _: argparse.Namespace) -> str:
    """Let the next map that is published become current again."""
    return f"{registry.unpin().version} is current, until another map is published"


def roll_back(registry: ClusterMapRegistry, parsed: argparse.Namespace) -> str:
    """Make the map before the current one current, or the one you name.

    Done twice without a name it returns to where it began. A pin stays a pin; without one, the
    next map that is published becomes current.
    """
    pointer = registry.roll_back(parsed.version)
    held = " (pinned)" if pointer.pinned else ""
    return f"current is now {pointer.version}{held}; before it {pointer.previous or 'none'}"


def prune(registry: ClusterMapRegistry, parsed: argparse.Namespace) -> str:
    """Remove all but the newest maps. The current one and the one before it always stay."""
    doomed = registry.prune(parsed.keep)
    return "\n".join(f"removed {version}" for version in doomed) or "nothing to remove"


CLUSTER_COMMANDS: dict[str, tuple[ClusterCommand, str]] = {
    "list": (show_maps, "list the maps; the current one is marked"),
    "pin": (pin, "hold on to a map, whatever is published"),
    "unpin": (unpin, "let what is published become current again"),
    "rollback": (roll_back, "make an older map current"),
    "prune": (prune, "remove old maps"),
}
WITHOUT_VERSION = {pin: "the current one", roll_back: "the one before"}


def _line_of(one: ListedMap, pointer: ClusterPointer | None) -> str:
    mark = "*" if one.is_current else " "
    told = f"{mark} {one.version}  {one.items:,} items  {one.level_1_codes:,} clusters  "
    return f"{told}{one.created_at}  {_standing(one, pointer)}"


def _standing(one: ListedMap, pointer: ClusterPointer | None) -> str:
    if one.is_current:
        return "current, pinned" if pointer and pointer.pinned else "current"
    if one.is_previous:
        return "the one before"
    return "stays" if one.expires_in_s is None else f"goes in {one.expires_in_s / 60:.0f} min"


def show_denylist(store: DenylistStore, _: argparse.Namespace) -> str:
    """Say how many items are denied, and since which change."""
    return f"{store.place}\n{_summary(_read(store))}"


def list_ids(store: DenylistStore, parsed: argparse.Namespace) -> str:
    """Print the ids, one a line, as `--file` reads them."""
    ids = _read(store).ids
    if not parsed.json_lines and any("\n" in one or "\r" in one for one in ids):
        raise ConfigError(
            f"{store.place}: found an id with a line break in it, expected one a line; ask "
            "with --json-lines"
        )
    return "\n".join(json.dumps(one) if parsed.json_lines else one for one in ids)


def set_ids(store: DenylistStore, parsed: argparse.Namespace) -> str:
    """Deny these items and no others; with an empty file, none."""
    return _summary(store.replace(_ids_given(parsed), time.time()))


def add_ids(store: DenylistStore, parsed: argparse.Namespace) -> str:
    """Deny these items, too."""
    return _summary(store.change(_ids_given(parsed), (), time.time()))


def remove_ids(store: DenylistStore, parsed: argparse.Namespace) -> str:
    """Deny these items no longer."""
    return _summary(store.change((), _ids_given(parsed), time.time()))


DENY_COMMANDS: dict[str, tuple[DenyCommand, str]] = {
    "show": (show_denylist, "how many items are denied"),
    "list": (list_ids, "print the denied ids"),
    "set": (set_ids, "deny these items and no others"),
    "add": (add_ids, "deny these items, too"),
    "remove": (remove_ids, "deny these items no longer"),
}


def _read(store: DenylistStore) -> Denylist:
    found = store.read()
    if found is None:
        raise NoDenylistError(
            f"{store.place}: holds no denylist; begin one with `python -m index denylist set`"
        )
    return found


def _summary(denylist: Denylist) -> str:
    return f"{len(denylist.ids):,} items are denied (sequence {denylist.sequence})"


def _ids_given(parsed: argparse.Namespace) -> list[str]:
    """Return the ids of the command line, or those of the file.

    Raises ConfigError if both or none are given, or one is no id.
    """
    if bool(parsed.ids) == (parsed.file is not None):
        raise ConfigError("denylist: expected ids, or --file FILE; give one of the two")
    place = "the command line" if parsed.ids else parsed.file
    ids = parsed.ids or _lines_of(parsed.file)
    if parsed.json_lines:
        ids = [_from_json(one, place) for one in ids]
    for one in ids:
        if not 1 <= len(one) <= ID_LENGTH or not _is_text(one):
            raise ConfigError(
                f"{place}: found {one[:60]!r}, expected an id of 1 to {ID_LENGTH} characters "
                "of text; correct it"
            )
    return list(ids)


def _lines_of(file: str) -> Sequence[str]:
    """Return the lines that hold something, as they are; a CR before the line's end is none."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read ({error.strerror}); expected a file of ids, one a line"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: found bytes that are no UTF-8 ({error}); write it as UTF-8"
        ) from error
    return [line for one in text.split("\n") if (line := one.removesuffix("\r"))]


def _from_json(line: str, place: str) -> str:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, str):
        raise ConfigError(f"{place}: found {line[:60]!r}, expected a JSON text; correct it")
    return found


def _is_text(one: str) -> bool:
    """Tell whether it has no half of a pair, as bytes of the command line that are no text."""
    return not any("\ud800" <= sign <= "\udfff" for sign in one)


def add_store_options(parser: argparse.ArgumentParser, what: str, where: str) -> None:
    """Describe `--redis`, `--bundles` and `--namespace`, which `store_of` reads.

    what   the store holds, as in "the maps"
    where  that is among the bundles, as in "the maps lie in clusters/"
    """
    place = parser.add_mutually_exclusive_group()
    add_redis_options(parser, place, what)
    place.add_argument(
        "--bundles",
        type=Path,
        metavar="BUNDLES",
        help=f"the folder of bundles, where no Redis is used; {where}",
    )


def add_redis_options(parser: argparse.ArgumentParser, place: Any, what: str) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Describe `--redis`, in its place of the parser, and `--namespace`."""
    place.add_argument(
        "--redis",
        metavar="URL",
        help=f"the Redis that holds {what}; default: {URL_VARIABLE}, which no list of processes "
        f"shows, or the file that {FILE_VARIABLE} names",
    )
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        help=f"what the keys in Redis begin with; default: {NAMESPACE_VARIABLE}, else {NAMESPACE}",
    )


def store_of(parsed: argparse.Namespace, what: str) -> tuple[str | None, Path, str]:
    """Return the address of Redis, if any, the folder of bundles, and the namespace.

    Raises ConfigError if neither the options nor the environment say where the store is.
    """
    url = parsed.redis or (None if parsed.bundles else address_from(os.environ))
    if not url and not parsed.bundles:
        raise ConfigError(
            f"{what}: found no address of a store, expected --redis URL, --bundles DIR or "
            f"{URL_VARIABLE} (or {FILE_VARIABLE}); give one of them"
        )
    return url, parsed.bundles or Path(), parsed.namespace or namespace_from(os.environ)
