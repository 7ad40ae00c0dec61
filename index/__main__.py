"""`python -m index`: look at a folder of bundles, and at cluster maps, and tend them."""

import argparse
import re
import sys
from pathlib import Path

from index.add_command import add_add_items, run_add_items
from index.clusters.commands import add_cluster_commands, run_cluster_command
from index.deny.commands import add_deny_commands, run_deny_command
from index.errors import EsansError, FaultyBundleError
from index.manifest import read_manifest
from index.shelf import Shelf


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status (0 done, 1 refused with a reason)."""
    parsed = build_parser().parse_args(arguments)
    try:
        if "cluster_command" in parsed:
            print(run_cluster_command(parsed))
        elif "deny_command" in parsed:
            print(run_deny_command(parsed))
        elif "items" in parsed:
            print(run_add_items(parsed))
        else:
            parsed.run(Shelf(parsed.bundles), parsed)
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
    shown = commands.add_parser("show", help="list the bundles; the current one is marked")
    shown.set_defaults(run=show)
    back = commands.add_parser(
        "rollback",
        help="make an older bundle current",
        description="Make the bundle before the current one current, or the one you name. "
        "Done twice without a name it returns to where it began.",
    )
    back.set_defaults(run=roll_back)
    pruned = commands.add_parser(
        "prune",
        help="remove old bundles",
        description="Remove all but the newest bundles. The current one and the one before it "
        "always stay, and so does what a run is writing.",
    )
    pruned.set_defaults(run=prune)
    for command in (shown, back, pruned):
        command.add_argument(
            "bundles", type=Path, metavar="BUNDLES", help="the folder of bundles"
        )
    back.add_argument(
        "version", nargs="?", metavar="VERSION", help="which one (default: the one before)"
    )
    pruned.add_argument(
        "--keep",
        type=_count,
        default=3,
        metavar="COUNT",
        help="how many of the newest stay (default: 3)",
    )
    add_add_items(commands)
    maps = commands.add_parser("clusters", help="look at cluster maps and tend them")
    add_cluster_commands(maps.add_subparsers(required=True, metavar="COMMAND"), _count)
    denied = commands.add_parser("deny", help="look at the deny list and change it")
    add_deny_commands(denied.add_subparsers(required=True, metavar="COMMAND"))
    return parser


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number, 0 or more")
    return int(text)


def show(shelf: Shelf, _: argparse.Namespace) -> None:
    """Print a line per bundle, oldest first."""
    pointer = shelf.pointer()
    versions = shelf.versions()
    if not versions:
        shelf.current()
    for version in versions:
        mark = "*" if pointer and pointer.version == version else " "
        print(f"{mark} {version}  {summary_of(shelf.folder / version)}")
    print("* is current" if pointer else "none is current")


def summary_of(folder: Path) -> str:
    """Say in a line what a bundle holds, or what is wrong with its manifest."""
    try:
        manifest = read_manifest(folder)
    except FaultyBundleError as error:
        return f"faulty: {'; '.join(error.faults)}"
    recall = manifest.measures.get("test", {}).get("model", {}).get("recall@50")
    return (
        f"{manifest.items:,} items  {manifest.index.factory}  "
        f"recall@50 {'not measured' if recall is None else format(recall, '.4f')}"
    )


def roll_back(shelf: Shelf, parsed: argparse.Namespace) -> None:
    """Make an older bundle current and say so."""
    pointer = shelf.roll_back(parsed.version)
    print(f"current is now {pointer.version}; before it {pointer.previous}")


def prune(shelf: Shelf, parsed: argparse.Namespace) -> None:
    """Remove old bundles and name them."""
    doomed = shelf.prune(parsed.keep)
    print("\n".join(f"removed {name}" for name in doomed) or "nothing to remove")


if __name__ == "__main__":
    sys.exit(main())
