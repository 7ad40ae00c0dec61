"""The invented shoppers: a few planted tastes each, drifting, and what they therefore took."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.shop import COLOUR_NAMES, Doubles, Ints, Shop

Truths = NDArray[np.bool_]

MIN_VISITS = 5  # per user
MAX_TASTES = 3
WHIM = 0.15  # share of visits that follow the crowd, not a taste
SAME_DEPARTMENT = 12.0  # how much likelier the next taste lies in the same department
RIGHT_COLOUR = 5.0  # how much likelier an item of the preferred colour is taken
CURRENT = 0.2  # from this share of attention on, a taste counts as current
DAY = 86_400
OPENING = 1_751_328_000  # unix seconds: 2025-07-01, the first day of the log
DAYS = 180


@dataclass(frozen=True)
class Tastes:
    """What every user likes, in the order in which it comes to matter.

    shelves    [users, MAX_TASTES]  rows of `shop.places`; only the first `counts` are meant
    colours    [users, MAX_TASTES]  the preferred colour on that shelf
    counts     [users]  two or three
    turnings   [users]  part of the user's time at which the last taste replaces the first;
                        NaN for users whose attention moves gradually
    """

    shelves: Ints
    colours: Ints
    counts: Ints
    turnings: Doubles

    def attention(self, users: Ints, progress: Doubles) -> Doubles:
        """[visits, MAX_TASTES] how it is divided at a moment, summing to 1.

        users     [visits]
        progress  [visits]  part of the user's time gone by, 0..1
        """
        places, last = np.arange(MAX_TASTES), self.counts[users, None] - 1
        gradual = np.exp(-(((progress[:, None] - places / last) / 0.5) ** 2))
        is_later = progress[:, None] >= self.turnings[users, None]
        sudden = np.where(is_later, places > 0, places < last).astype(np.float64)
        weights = np.where(np.isnan(self.turnings[users, None]), gradual, sudden)
        weights = np.where(places <= last, weights, 0.0)
        shares: Doubles = weights / weights.sum(axis=1, keepdims=True)
        return shares

    def current(self) -> Truths:
        """[users, MAX_TASTES] which tastes hold at the end of the user's time."""
        users = np.arange(len(self.counts))
        return self.attention(users, np.ones(len(users))) >= CURRENT


@dataclass(frozen=True)
class Visits:
    """One row per interaction, by user, then time; `steps` counts a user's visits from 0."""

    users: Ints
    steps: Ints
    timestamps: Ints
    progress: Doubles


def race(weights: Doubles, rng: np.random.Generator) -> Ints:
    """[rows] a column per row, drawn in proportion to the weights; -1 where all are 0.

    The column whose exponential clock, run at its weight, rings first.
    """
    with np.errstate(divide="ignore"):
        rings = rng.standard_exponential(weights.shape) / weights
    return np.where(weights.any(axis=1), rings.argmin(axis=1), -1)


def draw_tastes(shop: Shop, user_count: int, rng: np.random.Generator) -> Tastes:
    """Plant tastes; about half the time the next one lies in the same department."""
    departments = np.array([place.department_row for place in shop.places])
    shelves = np.zeros((user_count, MAX_TASTES), dtype=np.int64)
    weights = np.tile(shop.shelf_draws, (user_count, 1))  # [users, shelves]
    for place in range(MAX_TASTES):
        shelves[:, place] = race(weights, rng)
        is_near = departments == departments[shelves[:, place], None]
        weights = shop.shelf_draws * np.where(is_near, SAME_DEPARTMENT, 1.0)
        np.put_along_axis(weights, shelves[:, : place + 1], 0.0, axis=1)
    is_sudden = rng.random(user_count) < 0.5
    return Tastes(
        shelves=shelves,
        colours=rng.integers(len(COLOUR_NAMES), size=shelves.shape),
        counts=rng.integers(2, MAX_TASTES + 1, size=user_count),
        turnings=np.where(is_sudden, rng.uniform(0.3, 0.7, size=user_count), np.nan),
    )


def draw_visits(user_count: int, count: int, rng: np.random.Generator) -> Visits:
    """Spread the visits: some users come often, each within a time of their own."""
    keenness = np.minimum(rng.lognormal(sigma=0.7, size=user_count), 4.0)
    spare = count - MIN_VISITS * user_count
    counts = MIN_VISITS + rng.multinomial(spare, keenness / keenness.sum())
    users = np.repeat(np.arange(user_count), counts)
    first, last = rng.uniform(0, 50, user_count), rng.uniform(130, DAYS, user_count)  # days
    progress = rng.random(count)
    progress = progress[np.lexsort((progress, users))]
    days = first[users] + progress * (last - first)[users]
    return Visits(
        users=users,
        steps=np.arange(count) - np.repeat(np.cumsum(counts) - counts, counts),
        timestamps=OPENING + (days * DAY).astype(np.int64),
        progress=progress,
    )


def draw_items(shop: Shop, tastes: Tastes, visits: Visits, rng: np.random.Generator) -> Ints:
    """[visits] the item row taken at each; a user never takes the same twice.

    A visit that follows no taste, or finds its shelf used up, takes what is popular.
    """
    taken = np.zeros((len(tastes.counts), len(shop.titles)), dtype=np.bool_)
    items = np.zeros(len(visits.users), dtype=np.int64)
    is_whim = rng.random(len(items)) < WHIM
    whose = race(tastes.attention(visits.users, visits.progress), rng)  # [visits]
    for step in range(visits.steps.max() + 1):
        now = np.flatnonzero(visits.steps == step)
        users = visits.users[now]
        rows = _draw_from_shelves(shop, tastes, users, whose[now], taken, rng)
        is_open = is_whim[now] | (rows < 0)
        rows[is_open] = race(shop.popularity * ~taken[users[is_open]], rng)
        taken[users, rows] = True
        items[now] = rows
    return items


def _draw_from_shelves(
    shop: Shop,
    tastes: Tastes,
    users: Ints,
    whose: Ints,
    taken: Truths,
    rng: np.random.Generator,
) -> Ints:
    """[users] an item row of the taste's shelf not taken yet; -1 where there is none."""
    members = shop.members[tastes.shelves[users, whose]]  # [users, widest]
    colours = tastes.colours[users, whose]
    likes = np.where(shop.colour_rows[members] == colours[:, None], RIGHT_COLOUR, 1.0)
    is_free = (members >= 0) & ~taken[users[:, None], members]
    columns = race(shop.draws[members] * likes * is_free, rng)
    return np.where(columns < 0, -1, members[np.arange(len(users)), columns])
