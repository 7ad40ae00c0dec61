"""Generate a small shop with planted tastes, as a dataset folder that the trainer reads.

    python -m examples.catalogue .demo/data

Everything is generated from a seed. `planted.parquet` holds the ground truth: the trainer
ignores it, tests and the demo evaluate results with it.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from examples.modalities import Floats, build_modalities
from examples.pictures import Pixels, contact_sheet, draw_pictures
from examples.shop import MIN_ITEMS_PER_CATEGORY, Ints, Shop, build_shop
from examples.shoppers import MIN_VISITS, Tastes, Visits, sample_items, sample_tastes, sample_visits
from examples.tables import interactions_table, items_table, planted_table

MIN_ITEMS = 8 * MIN_ITEMS_PER_CATEGORY  # fewer have too few words for the textual features
NOTICE = "GENERATED"  # the first word of README.txt: this folder may be overwritten


@dataclass(frozen=True)
class ShopSize:
    """How much to generate.

    Raises:
        ValueError: There are too few items for the users and interactions.
    """

    items: int = 3_000
    users: int = 4_000
    interactions: int = 60_000

    def __post_init__(self) -> None:
        if self.items < MIN_ITEMS:
            raise ValueError(f"{self.items} items: at least {MIN_ITEMS}, to fill a few categories")
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
    """A generated shop with its users and interactions.

    Attributes:
        item_rows: [interactions], item taken at each of `visits`.
        pictures: [items, side, side, 3].
        modalities: Name -> [items, width]; a missing row is all NaN.
    """

    shop: Shop
    tastes: Tastes
    visits: Visits
    item_rows: Ints
    pictures: Pixels
    modalities: dict[str, Floats]


def make_catalogue(folder: Path, size: ShopSize, seed: int) -> Catalogue:
    """Generate a shop and save it as a dataset folder; the same seed gives the same numbers.

    Raises:
        FileExistsError: The folder holds files that were not generated here.
    """
    check_overwritable(folder)
    catalogue = generate_catalogue(size, np.random.default_rng(seed))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.txt").write_text(describe(size, seed), encoding="utf-8")
    save_catalogue(catalogue, folder)
    return catalogue


def generate_catalogue(size: ShopSize, rng: np.random.Generator) -> Catalogue:
    """Generate everything in memory; each part has its own random stream."""
    shop_rng, picture_rng, feature_rng, user_rng = rng.spawn(4)
    shop = build_shop(size.items, shop_rng)
    pictures = draw_pictures(shop, picture_rng)
    tastes = sample_tastes(shop, size.users, user_rng)
    visits = sample_visits(size.users, size.interactions, user_rng)
    return Catalogue(
        shop=shop,
        tastes=tastes,
        visits=visits,
        item_rows=sample_items(shop, tastes, visits, user_rng),
        pictures=pictures,
        modalities=build_modalities(shop.titles, pictures, feature_rng),
    )


def save_catalogue(catalogue: Catalogue, folder: Path) -> None:
    """Write the tables and the features; files of the same names are overwritten."""
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
    """Render the folder's README: the data is generated, and how to generate it again."""
    return f"""{NOTICE} DATA: an invented shop. No real people, products, brands or sales.

Made by: python -m examples.catalogue FOLDER --items {size.items} --users {size.users} \
--interactions {size.interactions} --seed {seed}

items.parquet          {size.items} items: title, department, category, colour, price
interactions.parquet   {size.interactions} interactions, oldest first; timestamp in unix seconds
features_visual.npy    from small drawn pictures; an all-NaN row means none
features_textual.npy   from the titles; an all-NaN row means none
planted.parquet        ground truth of {size.users} users: their tastes, which are current
"""


def check_overwritable(folder: Path) -> None:
    """Raise FileExistsError if the folder holds anything but a generated shop."""
    readme = folder / "README.txt"
    is_generated = readme.is_file() and readme.read_text(encoding="utf-8").startswith(NOTICE)
    if folder.is_dir() and any(folder.iterdir()) and not is_generated:
        raise FileExistsError(
            f"{folder}: holds files, but no README.txt that begins with {NOTICE}; "
            "they may be real data, so give another folder"
        )


def main(words: list[str] | None = None) -> None:
    """Generate a shop and print its sizes."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.catalogue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A smaller shop has fewer categories. Same seed and sizes: the same numbers.",
    )
    defaults = ShopSize()
    for name, meaning in {
        "items": "items in the shop",
        "users": "shoppers, each with two or three tastes that drift",
        "interactions": f"visits in all, at least {MIN_VISITS} per shopper",
    }.items():
        default = getattr(defaults, name)
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="COUNT", help=f"{meaning} ({default})"
        )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="output folder; created if absent"
    )
    parser.add_argument("--seed", type=int, default=7, help="random seed (7)")
    parser.add_argument(
        "--pictures", action="store_true", help="also save pictures.png, a sheet of item pictures"
    )
    args = parser.parse_args(words)
    try:
        size = ShopSize(args.items, args.users, args.interactions)
        catalogue = make_catalogue(args.folder, size, args.seed)
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    if args.pictures:
        contact_sheet(catalogue.shop, catalogue.pictures).save(args.folder / "pictures.png")
    print(f"{args.folder}: {size.items} items, {size.users} users, {size.interactions} visits")


if __name__ == "__main__":
    main()
