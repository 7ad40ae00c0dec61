"""`python -m index`: look at a folder of bundles, and at cluster maps, and tend them."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from index.bundle.manifest import read_manifest
from index.bundle.registry import BundleRegistry
from index.errors import ConfigError, EsansError, InvalidBundleError
from index.store_commands import (
    add_cluster_commands,
    add_deny_commands,
    add_keep_option,
    add_version_argument,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status (0 done, 1 refused with a reason)."""
    parsed = build_parser().parse_args(arguments)
    try:
        print(parsed.run(parsed))
    except EsansError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        place = getattr(parsed, "bundles", None) or "the output"
        print(
            f"{place}: stopped by the system ({error}); what was current still is; see whether "
            "the disk is full or may not be written to, then give the same command again",
            file=sys.stderr,
        )
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    parser = argparse.ArgumentParser(
        prog="python -m index", description="Look at bundles and cluster maps, and tend them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (command, told) in BUNDLE_COMMANDS.items():
        described = commands.add_parser(name, help=told, description=command.__doc__)
        described.set_defaults(run=command)
        described.add_argument(
            "bundles", type=Path, metavar="BUNDLES", help="the folder of bundles"
        )
        if command is roll_back:
            add_version_argument(described, "the one before")
        if command is prune:
            add_keep_option(described)
    add_add_items(commands)
    maps = commands.add_parser("clusters", help="look at cluster maps and tend them")
    add_cluster_commands(maps.add_subparsers(required=True, metavar="COMMAND"))
    denied = commands.add_parser("denylist", help="look at the denylist and change it")
    add_deny_commands(denied.add_subparsers(required=True, metavar="COMMAND"))
    return parser


def show(parsed: argparse.Namespace) -> str:
    """List the bundles, oldest first. The current one is marked."""
    registry = BundleRegistry(parsed.bundles)
    pointer = registry.pointer()
    versions = registry.versions()
    if not versions:
        registry.current()
    lines = [
        f"{'*' if pointer and pointer.version == version else ' '} {version}  "
        f"{summary_of(registry.folder / version)}"
        for version in versions
    ]
    return "\n".join([*lines, "* is current" if pointer else "none is current"])


def summary_of(folder: Path) -> str:
    """Say in a line what a bundle holds, or what is wrong with its manifest."""
    try:
        manifest = read_manifest(folder)
    except InvalidBundleError as error:
        return f"faulty: {'; '.join(error.faults)}"
    recall = manifest.metrics.get("test", {}).get("model", {}).get("recall@50")
    return (
        f"{manifest.items:,} items  {manifest.index.factory}  "
        f"recall@50 {'not measured' if recall is None else format(recall, '.4f')}"
    )


def roll_back(parsed: argparse.Namespace) -> str:
    """Make the bundle before the current one current, or the one you name.

    Done twice without a name it returns to where it began.
    """
    pointer = BundleRegistry(parsed.bundles).roll_back(parsed.version)
    return f"current is now {pointer.version}; before it {pointer.previous}"


def prune(parsed: argparse.Namespace) -> str:
    """Remove all but the newest bundles.

    The current one and the one before it always stay, and so does what a run is writing.
    """
    doomed = BundleRegistry(parsed.bundles).prune(parsed.keep)
    return "\n".join(f"removed {name}" for name in doomed) or "nothing to remove"


BUNDLE_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], str], str]] = {
    "show": (show, "list the bundles; the current one is marked"),
    "rollback": (roll_back, "make an older bundle current"),
    "prune": (prune, "remove old bundles"),
}


def add_add_items(commands: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Describe `add-items`."""
    added = commands.add_parser(
        "add-items",
        help="publish the current bundle with more items",
        description="Encode the items of a folder by their features, append them to a bundle, "
        "publish that as a new version and make it current. Towers, histories and cluster map "
        "stay as they are; nothing is trained. A new item is found by similarity from then on; "
        "it is among the popular ones only after a training.",
        epilog="The folder holds items.parquet or items.csv with `item_id` and, as for the "
        "trainer, any columns, and features as list columns or in features_NAME.npy; other "
        "files are passed over. Features are those that the bundle was trained on, in the same "
        "widths; an item may lack some of them, not all. Columns get the types of the "
        "bundle's. Exit status 1: nothing was made current, and the reason is told.",
    )
    added.set_defaults(run=run_add_items)
    added.add_argument("bundles", type=Path, metavar="BUNDLES", help="the folder of bundles")
    added.add_argument(
        "--items", type=Path, required=True, metavar="FOLDER", help="the folder of items"
    )
    added.add_argument(
        "--from", dest="version", metavar="VERSION", help="extend this one (default: the current)"
    )
    added.add_argument(
        "--no-current", action="store_true", help="publish it, and leave `current` alone"
    )
    added.add_argument(
        "--skip-known", action="store_true", help="leave out items that the bundle holds"
    )
    added.add_argument(
        "--skip-empty", action="store_true", help="leave out items without any features"
    )


def run_add_items(parsed: argparse.Namespace) -> str:
    """Add items to a bundle and say what came of it."""
    try:
        from index.publish.append import Skip, add_items  # late: wants pyarrow, as others do not
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"add-items: found no {error.name}, expected it to be installed; "
            "`pip install 'esans[tables]'`"
        ) from error
    registry = BundleRegistry(parsed.bundles)
    before = registry.pointer()
    skip = Skip(known=parsed.skip_known, empty=parsed.skip_empty)
    now = datetime.now(UTC)
    added = add_items(registry, parsed.items, now, version=parsed.version, skip=skip)
    told = [f"note: {note}" for note in added.notes]
    if not added.count:
        return "\n".join([*told, f"nothing to add: {added.version} stays as it is"])
    found = ", ".join(
        f"@{count} {share:.4f}" for count, share in sorted(added.index.recall.items())
    )
    told += [
        f"{added.count:,} items added to {added.base}; published {added.version}",
        f"index: {added.index.factory}; recall against exact search {found or 'exact'}",
    ]
    if parsed.no_current:
        return "\n".join([*told, "not made current, as asked"])
    pointer = registry.advance(added.version, before)
    told += [f"current is now {pointer.version}; before it {pointer.previous}"]
    return "\n".join(told)


if __name__ == "__main__":
    sys.exit(main())
