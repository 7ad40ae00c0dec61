"""The goods of the invented shop: who stands on which shelf, its title, price and draw.

Knows nothing of shoppers, pictures or files.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.taxonomy import BRANDS, COLOURS, DEPARTMENTS, SERIES, Shelf

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]

MIN_ITEMS_PER_SHELF = 20  # fewer, and a keen shopper would empty the shelf
COLOUR_NAMES = tuple(COLOURS)
DEPARTMENT_NAMES = tuple(DEPARTMENTS)


@dataclass(frozen=True)
class Place:
    """A shelf with its address: `department > name`, counted within the department."""

    department: str
    name: str
    department_row: int
    rank: int
    shelf: Shelf

    @property
    def path(self) -> str:
        """The address as people write it."""
        return f"{self.department} > {self.name}"


@dataclass(frozen=True)
class Shop:
    """All goods, one row each.

    places           the shelves in use
    shelf_rows       [items] which of `places`
    colour_rows      [items] which of `COLOUR_NAMES`
    titles           [items]
    prices           [items] in whole units of money, cents as a fraction
    draws            [items] long-tailed share of its shelf's sales; a shelf sums to 1
    shelf_draws      [shelves] the shelf's share of the shop's sales; sums to 1
    members          [shelves, widest] item rows of a shelf, filled up with -1
    """

    places: tuple[Place, ...]
    shelf_rows: Ints
    colour_rows: Ints
    titles: list[str]
    prices: Doubles
    draws: Doubles
    shelf_draws: Doubles
    members: Ints

    @property
    def item_ids(self) -> list[str]:
        """`sku-00042`, in row order."""
        return [f"sku-{row:05d}" for row in range(len(self.titles))]

    @property
    def popularity(self) -> Doubles:
        """[items] the share of the shop's sales; sums to 1."""
        return self.draws * self.shelf_draws[self.shelf_rows]


def stock_shop(item_count: int, rng: np.random.Generator) -> Shop:
    """Fill as many shelves as the items allow; a small shop spreads over all departments."""
    places = choose_places(item_count)
    shelf_rows = spread_items(item_count, len(places), rng)
    colour_rows = rng.integers(len(COLOUR_NAMES), size=item_count)
    return Shop(
        places=places,
        shelf_rows=shelf_rows,
        colour_rows=colour_rows,
        titles=compose_titles(places, shelf_rows, colour_rows, rng),
        prices=draw_prices(np.array([p.shelf.usual_price for p in places])[shelf_rows], rng),
        draws=draw_long_tails(shelf_rows, rng),
        shelf_draws=rng.dirichlet(np.full(len(places), 4.0)),
        members=list_members(shelf_rows, len(places)),
    )


def choose_places(item_count: int) -> tuple[Place, ...]:
    """Open the first shelf of every department, then the second ..., while items last."""
    places = [
        Place(department, name, department_row, rank, shelf)
        for department_row, (department, shelves) in enumerate(DEPARTMENTS.items())
        for rank, (name, shelf) in enumerate(shelves.items())
    ]
    places.sort(key=lambda place: (place.rank, place.department_row))
    return tuple(places[: max(1, item_count // MIN_ITEMS_PER_SHELF)])


def spread_items(item_count: int, shelf_count: int, rng: np.random.Generator) -> Ints:
    """[items] a shelf for each: at least the minimum on every shelf, the rest by chance."""
    certain = np.repeat(np.arange(shelf_count), min(MIN_ITEMS_PER_SHELF, item_count))
    rest = rng.integers(shelf_count, size=item_count - len(certain))
    return rng.permutation(np.concatenate([certain, rest])).astype(np.int64)


def compose_titles(
    places: tuple[Place, ...], shelf_rows: Ints, colour_rows: Ints, rng: np.random.Generator
) -> list[str]:
    """[items] like 'Harbrook Fjord copper moka pot, teal'; a shelf carries few makers."""
    words = [  # brands, series, materials and nouns of each shelf
        (
            rng.choice(BRANDS, 3, replace=False),
            rng.choice(SERIES, 4, replace=False),
            place.shelf.materials,
            place.shelf.nouns,
        )
        for place in places
    ]
    titles = []
    for shelf, colour in zip(shelf_rows, colour_rows, strict=True):
        chosen = [options[rng.integers(len(options))] for options in words[shelf]]
        titles.append(f"{' '.join(chosen)}, {COLOUR_NAMES[colour]}")
    return titles


def draw_prices(usual: Doubles, rng: np.random.Generator) -> Doubles:
    """[items] around the usual price, ending in .90 or .50 as on a label."""
    around = usual * rng.lognormal(sigma=0.35, size=len(usual))
    cents = rng.choice([0.50, 0.90], size=len(usual), p=[0.3, 0.7])
    prices: Doubles = np.maximum(np.floor(around), 2.0) + cents
    return prices


def draw_long_tails(shelf_rows: Ints, rng: np.random.Generator) -> Doubles:
    """[items] shares within the shelf that fall with the place, places given by chance."""
    draws = np.zeros(len(shelf_rows))
    for shelf in np.unique(shelf_rows):
        rows = np.flatnonzero(shelf_rows == shelf)
        shares = (1.0 + rng.permutation(len(rows))) ** -0.8
        draws[rows] = shares / shares.sum()
    return draws


def list_members(shelf_rows: Ints, shelf_count: int) -> Ints:
    """[shelves, widest] the item rows of each shelf, filled up with -1."""
    members = np.full((shelf_count, np.bincount(shelf_rows).max()), -1)
    for shelf in range(shelf_count):
        rows = np.flatnonzero(shelf_rows == shelf)
        members[shelf, : len(rows)] = rows
    return members
