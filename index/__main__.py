"""Command line `python -m index`: inspect and manage bundles, cluster maps and the denylist."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from index.bundle.manifest import read_manifest
from index.bundle.registry import BundleRegistry
from index.errors import ConfigError, EsansError, InvalidBundleError
from index.fsio import parse_path
from index.store_commands import (
    add_cluster_commands,
    add_denylist_commands,
    add_keep_option,
    add_version_argument,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status (0 success, 1 an error with a message)."""
    parsed = build_parser().parse_args(arguments)
    try:
        print(parsed.run(parsed))
    except EsansError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        location = getattr(parsed, "bundles", None) or "output"
        print(
            f"{location}: {error}; `current` is unchanged; check free disk space and write "
            "access, then run the command again",
            file=sys.stderr,
        )
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog="python -m index",
        description="Inspect and manage bundles, cluster maps and the denylist.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (command, summary) in BUNDLE_COMMANDS.items():
        subparser = commands.add_parser(name, help=summary, description=command.__doc__)
        subparser.set_defaults(run=command)
        subparser.add_argument(
            "bundles", type=parse_path, metavar="BUNDLES", help="the folder of bundles"
        )
        if command is roll_back:
            add_version_argument(subparser, "the one that was current before")
        if command is prune:
            add_keep_option(subparser)
    add_items_command(commands)
    maps = commands.add_parser("clusters", help="inspect and manage cluster maps")
    add_cluster_commands(maps.add_subparsers(required=True, metavar="COMMAND"))
    denylist = commands.add_parser("denylist", help="inspect and change the denylist")
    add_denylist_commands(denylist.add_subparsers(required=True, metavar="COMMAND"))
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
        f"{summarize(registry.folder / version)}"
        for version in versions
    ]
    return "\n".join([*lines, "* is current" if pointer else "none is current"])


def summarize(folder: Path) -> str:
    """Summarize a bundle in one line, or the faults of its manifest."""
    try:
        manifest = read_manifest(folder)
    except InvalidBundleError as error:
        return f"invalid: {'; '.join(error.faults)}"
    recall = manifest.metrics.get("test", {}).get("model", {}).get("recall@50")
    return (
        f"{manifest.items:,} items  {manifest.index.factory}  "
        f"recall@50 {'not measured' if recall is None else format(recall, '.4f')}"
    )


def roll_back(parsed: argparse.Namespace) -> str:
    """Make a bundle, by default the one that was current before, current.

    A second rollback goes further back; to undo one, name the version.
    """
    registry = BundleRegistry(parsed.bundles)
    replaced = registry.current_version() or "none"
    pointer = registry.roll_back(parsed.version)
    further = pointer.previous or f"no further, expected one of {', '.join(registry.versions())}"
    return (
        f"rolled back from {replaced} to {pointer.version}; services follow\n"
        f"another rollback leads to {further}"
    )


def prune(parsed: argparse.Namespace) -> str:
    """Remove all but the newest bundles.

    The current one and the one that a rollback leads to always stay, and so do bundles that are
    being written. The report of a bundle is removed with it.
    """
    removed = BundleRegistry(parsed.bundles).prune(parsed.keep)
    return "\n".join(f"removed {name}" for name in removed) or "nothing to remove"


BUNDLE_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], str], str]] = {
    "show": (show, "list the bundles; the current one is marked"),
    "rollback": (roll_back, "make an older bundle current"),
    "prune": (prune, "remove old bundles"),
}


def add_items_command(commands: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add the command `add-items`."""
    subparser = commands.add_parser(
        "add-items",
        help="publish the current bundle with more items",
        description="Encode new items from their features, append them to a bundle, publish it "
        "as a new version and make it current. Towers, histories and the cluster map do not "
        "change; nothing is trained. New items are retrieved by similarity at once, and by "
        "popularity only after the next training.",
        epilog="The folder holds items.parquet or items.csv with `item_id` and, as for the "
        "trainer, any columns, and features as list columns or in features_NAME.npy; other "
        "files are ignored. Features are those the bundle was trained on, with the same "
        "dimensions; an item may lack some of them, not all. Columns are cast to the types of "
        "the bundle. Exit status 1: `current` did not change, and the message gives the reason.",
    )
    subparser.set_defaults(run=run_add_items)
    subparser.add_argument(
        "bundles", type=parse_path, metavar="BUNDLES", help="the folder of bundles"
    )
    subparser.add_argument(
        "--items", type=parse_path, required=True, metavar="FOLDER", help="the folder of items"
    )
    subparser.add_argument(
        "--from",
        dest="version",
        metavar="VERSION",
        help="bundle to extend (default: the current one)",
    )
    subparser.add_argument(
        "--no-current", action="store_true", help="publish without moving `current`"
    )
    subparser.add_argument(
        "--skip-known", action="store_true", help="skip items that the bundle already has"
    )
    subparser.add_argument(
        "--skip-empty", action="store_true", help="skip items without any features"
    )


def run_add_items(parsed: argparse.Namespace) -> str:
    """Add items to a bundle and report the result."""
    try:
        # imported here: only this command needs pyarrow
        from index.publish.append import Skip, add_items
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"add-items: {error.name} is not installed, expected it; "
            "run `pip install 'esans[tables]'`"
        ) from error
    registry = BundleRegistry(parsed.bundles)
    before = registry.pointer()
    skip = Skip(known=parsed.skip_known, empty=parsed.skip_empty)
    now = datetime.now(UTC)
    added = add_items(registry, parsed.items, now, version=parsed.version, skip=skip)
    lines = [f"note: {note}" for note in added.notes]
    if not added.count:
        return "\n".join([*lines, f"nothing to add: {added.version} is unchanged"])
    recall = ", ".join(
        f"@{count} {value:.4f}" for count, value in sorted(added.index.recall.items())
    )
    lines += [
        f"{added.count:,} items added to {added.base}; published {added.version}",
        f"index: {added.index.factory}; recall against exact search {recall or 'exact'}",
    ]
    if parsed.no_current:
        return "\n".join([*lines, "`current` is unchanged (--no-current)"])
    pointer = registry.advance(added.version, before)
    lines += [f"current is now {pointer.version}; previous {pointer.previous}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
