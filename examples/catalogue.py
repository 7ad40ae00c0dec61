"""Generate a small shop with planted tastes, as a dataset folder that the trainer reads.

    python -m examples.catalogue .demo/data

All invented, from a seed. `planted.parquet` holds the truth: the trainer passes it over, tests
and the demo judge answers by it.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from examples.modalities import Floats, make_modalities
from examples.pictures import Pixels, contact_sheet, draw_pictures
from examples.shop import MIN_ITEMS_PER_SHELF, Ints, Shop, stock_shop
from examples.shoppers import (
    MIN_VISITS,
    Tastes,
    Visits,
    draw_items,
    draw_tastes,
    draw_visits,
)
from examples.tables import interactions_table, items_table, planted_table

MIN_ITEMS = 8 * MIN_ITEMS_PER_SHELF  # fewer have not words enough for the textual width
NOTICE = "GENERATED"  # the first word of README.txt: this folder may be written over


@dataclass(frozen=True)
class ShopSize:
    """How much to generate.

    Raises ValueError if the shelves could not feed the shoppers.
    """

    items: int = 3_000
    users: int = 4_000
    interactions: int = 60_000

    def __post_init__(self) -> None:
        if self.items < MIN_ITEMS:
            raise ValueError(f"{self.items} items: at least {MIN_ITEMS}, to fill a few shelves")
        if self.users < 1:
            raise ValueError(f"{self.users} users: at least 1")
        least, most = MIN_VISITS * self.users, self.users * self.items // 10
        if not least <= self.interactions <= most:
            raise ValueError(
                f"{self.interactions} interactions: between {least} ({MIN_VISITS} a user) and "
                f"{most} (a tenth of the shop a user)"
            )


@dataclass(frozen=True)
class Catalogue:
    """A generated shop with everything that happened in it.

    item_rows   [interactions] what was taken at each of `visits`
    pictures    [items, side, side, 3]
    modalities  name -> [items, width]; a missing row is all NaN
    """

    shop: Shop
    tastes: Tastes
    visits: Visits
    item_rows: Ints
    pictures: Pixels
    modalities: dict[str, Floats]


def make_catalogue(folder: Path, size: ShopSize, seed: int) -> Catalogue:
    """Generate a shop and save it as a dataset folder; the same seed gives the same numbers.

    Raises FileExistsError if the folder holds files that were not generated here.
    """
    refuse_real_data(folder)
    catalogue = imagine_catalogue(size, np.random.default_rng(seed))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.txt").write_text(describe(size, seed), encoding="utf-8")
    save_catalogue(catalogue, folder)
    return catalogue


def imagine_catalogue(size: ShopSize, rng: np.random.Generator) -> Catalogue:
    """Generate everything in memory; each part has its own stream of chance."""
    goods, brush, sensor, people = rng.spawn(4)
    shop = stock_shop(size.items, goods)
    pictures = draw_pictures(shop, brush)
    tastes = draw_tastes(shop, size.users, people)
    visits = draw_visits(size.users, size.interactions, people)
    return Catalogue(
        shop=shop,
        tastes=tastes,
        visits=visits,
        item_rows=draw_items(shop, tastes, visits, people),
        pictures=pictures,
        modalities=make_modalities(shop.titles, pictures, sensor),
    )


def save_catalogue(catalogue: Catalogue, folder: Path) -> None:
    """Write the tables and the features; files of the same names are written over."""
    tables = {
        "items": items_table(catalogue.shop),
        "interactions": interactions_table(catalogue.shop, catalogue.visits, catalogue.item_rows),
        "planted": planted_table(catalogue.shop, catalogue.tastes),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    for name, values in catalogue.modalities.items():
        np.save(folder / f"features_{name}.npy", values)


def describe(size: ShopSize, seed: int) -> str:
    """The folder's README: that nothing here is real, and how to make it again."""
    return f"""{NOTICE} DATA: an invented shop. No real people, products, brands or sales.

Made by: python -m examples.catalogue FOLDER --items {size.items} --users {size.users} \
--interactions {size.interactions} --seed {seed}

items.parquet          {size.items} items: title, department, shelf, colour, price
interactions.parquet   {size.interactions} interactions, oldest first; timestamp in unix seconds
features_visual.npy    from small drawn pictures; an all-NaN row is an item without one
features_textual.npy   from the titles; an all-NaN row is an item without one
planted.parquet        the truth behind {size.users} users: their tastes, which are current
"""


def refuse_real_data(folder: Path) -> None:
    """Raise FileExistsError if the folder holds anything and does not bear our notice."""
    readme = folder / "README.txt"
    is_ours = readme.is_file() and readme.read_text(encoding="utf-8").startswith(NOTICE)
    if folder.is_dir() and any(folder.iterdir()) and not is_ours:
        raise FileExistsError(
            f"{folder}: holds files, but no README.txt that begins with {NOTICE}; "
            "they may be real data, so give another folder"
        )


def main(words: list[str] | None = None) -> None:
    """Generate as asked on the command line, and say what was made."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.catalogue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A smaller shop opens fewer shelves. Same seed, same sizes: the same numbers.",
    )
    usual = ShopSize()
    for name, meaning in {
        "items": "goods in the shop",
        "users": "shoppers, each with two or three tastes that drift",
        "interactions": f"visits in all, at least {MIN_VISITS} per shopper",
    }.items():
        whole = getattr(usual, name)
        parser.add_argument(
            f"--{name}", type=int, default=whole, metavar="COUNT", help=f"{meaning} ({whole})"
        )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="written to; made if absent")
    parser.add_argument("--seed", type=int, default=7, help="of all that is left to chance (7)")
    parser.add_argument(
        "--pictures", action="store_true", help="also save pictures.png, to see the goods"
    )
    asked = parser.parse_args(words)
    try:
        size = ShopSize(asked.items, asked.users, asked.interactions)
        catalogue = make_catalogue(asked.folder, size, asked.seed)
    except (ValueError, FileExistsError) as fault:
        parser.error(str(fault))
    if asked.pictures:
        contact_sheet(catalogue.shop, catalogue.pictures).save(asked.folder / "pictures.png")
    print(f"{asked.folder}: {size.items} items, {size.users} users, {size.interactions} visits")


if __name__ == "__main__":
    main()
