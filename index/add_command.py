"""`python -m index add-items`: described, and said what came of it."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from index.errors import ConfigError
from index.shelf import Shelf


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
    added.add_argument("bundles", type=Path, metavar="BUNDLES", help="the folder of bundles")
    added.add_argument(
        "--items", type=Path, required=True, metavar="FOLDER", help="the folder of items"
    )
    added.add_argument(
        "--from",
        dest="version",
        metavar="VERSION",
        help="extend this one (default: the current)",
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
        from index.adding import add_items  # late: wants pyarrow, which others do not
        from index.reading.new_items import LeftOut
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"add-items: found no {error.name}, expected it to be installed; "
            "`pip install 'esans[tables]'`"
        ) from error
    shelf = Shelf(parsed.bundles)
    before = shelf.pointer()
    left_out = LeftOut(known=parsed.skip_known, empty=parsed.skip_empty)
    now = datetime.now(UTC)
    added = add_items(shelf, parsed.items, now, version=parsed.version, left_out=left_out)
    told = [f"note: {note}" for note in added.notes]
    if not added.count:
        return "\n".join([*told, f"nothing to add: {added.version} stays as it is"])
    found = ", ".join(
        f"@{count} {share:.4f}" for count, share in sorted(added.index.recall.items())
    )
    told += [
        f"{added.count:,} items added to {added.came_from}; published {added.version}",
        f"index: {added.index.factory}; recall against exact search {found or 'exact'}",
    ]
    if parsed.no_current:
        return "\n".join([*told, "not made current, as asked"])
    pointer = shelf.advance(added.version, before)
    told += [f"current is now {pointer.version}; before it {pointer.previous}"]
    return "\n".join(told)
