"""Items of the generated shop: categories, titles, prices and popularity.

Independent of shoppers, pictures and files.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.taxonomy import BRANDS, COLOURS, DEPARTMENTS, SERIES, CategoryTemplate

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]

MIN_ITEMS_PER_CATEGORY = 20  # with fewer, an active shopper could buy every item of one
COLOUR_NAMES = tuple(COLOURS)
DEPARTMENT_NAMES = tuple(DEPARTMENTS)


@dataclass(frozen=True)
class Category:
    """A category of a department; `rank` is its position there."""

    department: str
    name: str
    department_row: int
    rank: int
    template: CategoryTemplate

    @property
    def path(self) -> str:
        """The category path, such as `Kitchen > Coffee`."""
        return f"{self.department} > {self.name}"


@dataclass(frozen=True)
class Shop:
    """All items, one row each.

    Attributes:
        categories: Categories in use.
        category_rows: [items], index into `categories`.
        colour_rows: [items], index into `COLOUR_NAMES`.
        titles: [items].
        prices: [items], in currency units with two decimals.
        item_shares: [items], long-tailed share of its category's sales; sums to 1 per category.
        category_shares: [categories], share of the shop's sales; sums to 1.
        members: [categories, largest], item rows of each category, padded with -1.
    """

    categories: tuple[Category, ...]
    category_rows: Ints
    colour_rows: Ints
    titles: list[str]
    prices: Doubles
    item_shares: Doubles
    category_shares: Doubles
    members: Ints

    @property
    def item_ids(self) -> list[str]:
        """Ids such as `sku-00042`, in row order."""
        return [f"sku-{row:05d}" for row in range(len(self.titles))]

    @property
    def popularity(self) -> Doubles:
        """Share of the shop's sales, [items]; sums to 1."""
        return self.item_shares * self.category_shares[self.category_rows]


def build_shop(num_items: int, rng: np.random.Generator) -> Shop:
    """Build a shop with as many categories as the items fill; a small one has all departments."""
    categories = choose_categories(num_items)
    category_rows = spread_items(num_items, len(categories), rng)
    colour_rows = rng.integers(len(COLOUR_NAMES), size=num_items)
    return Shop(
        categories=categories,
        category_rows=category_rows,
        colour_rows=colour_rows,
        titles=compose_titles(categories, category_rows, colour_rows, rng),
        prices=sample_prices(
            np.array([category.template.usual_price for category in categories])[category_rows], rng
        ),
        item_shares=sample_long_tails(category_rows, rng),
        category_shares=rng.dirichlet(np.full(len(categories), 4.0)),
        members=list_members(category_rows, len(categories)),
    )


def choose_categories(num_items: int) -> tuple[Category, ...]:
    """Choose the first category of every department, then the second ..., while items last."""
    categories = [
        Category(department, name, department_row, rank, template)
        for department_row, (department, templates) in enumerate(DEPARTMENTS.items())
        for rank, (name, template) in enumerate(templates.items())
    ]
    categories.sort(key=lambda category: (category.rank, category.department_row))
    return tuple(categories[: max(1, num_items // MIN_ITEMS_PER_CATEGORY)])


def spread_items(num_items: int, num_categories: int, rng: np.random.Generator) -> Ints:
    """Assign a category row to each item: the minimum to every category, the rest at random."""
    minimum = np.repeat(np.arange(num_categories), min(MIN_ITEMS_PER_CATEGORY, num_items))
    rest = rng.integers(num_categories, size=num_items - len(minimum))
    return rng.permutation(np.concatenate([minimum, rest])).astype(np.int64)


def compose_titles(
    categories: tuple[Category, ...],
    category_rows: Ints,
    colour_rows: Ints,
    rng: np.random.Generator,
) -> list[str]:
    """Compose titles such as 'Harbrook Fjord copper moka pot, teal'; few brands per category."""
    words = [  # brands, series, materials and nouns of each category
        (
            rng.choice(BRANDS, 3, replace=False),
            rng.choice(SERIES, 4, replace=False),
            category.template.materials,
            category.template.nouns,
        )
        for category in categories
    ]
    titles = []
    for category_row, colour in zip(category_rows, colour_rows, strict=True):
        chosen = [options[rng.integers(len(options))] for options in words[category_row]]
        titles.append(f"{' '.join(chosen)}, {COLOUR_NAMES[colour]}")
    return titles


def sample_prices(usual: Doubles, rng: np.random.Generator) -> Doubles:
    """Sample prices around the usual ones, ending in .50 or .90."""
    around = usual * rng.lognormal(sigma=0.35, size=len(usual))
    cents = rng.choice([0.50, 0.90], size=len(usual), p=[0.3, 0.7])
    prices: Doubles = np.maximum(np.floor(around), 2.0) + cents
    return prices


def sample_long_tails(category_rows: Ints, rng: np.random.Generator) -> Doubles:
    """Sample each item's share within its category: a power law over a random order."""
    item_shares = np.zeros(len(category_rows))
    for category in np.unique(category_rows):
        rows = np.flatnonzero(category_rows == category)
        shares = (1.0 + rng.permutation(len(rows))) ** -0.8
        item_shares[rows] = shares / shares.sum()
    return item_shares


def list_members(category_rows: Ints, num_categories: int) -> Ints:
    """List the item rows of each category, [categories, largest], padded with -1."""
    members = np.full((num_categories, np.bincount(category_rows).max()), -1)
    for category in range(num_categories):
        rows = np.flatnonzero(category_rows == category)
        members[category, : len(rows)] = rows
    return members
