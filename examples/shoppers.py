"""Generated shoppers: a few planted tastes each, which drift, and the items they take."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.shop import COLOUR_NAMES, Doubles, Ints, Shop

Bools = NDArray[np.bool_]

MIN_VISITS = 5  # per user
MAX_TASTES = 3
WHIM = 0.15  # share of visits that follow popularity instead of a taste
SAME_DEPARTMENT = 12.0  # weight of a next taste in the same department
RIGHT_COLOUR = 5.0  # weight of an item of the preferred colour
CURRENT = 0.2  # a taste with at least this share of attention is current
DAY = 86_400
OPENING = 1_751_328_000  # unix seconds: 2025-07-01, the first day of the log
DAYS = 180


@dataclass(frozen=True)
class Tastes:
    """Tastes of every user, in chronological order.

    Attributes:
        categories: [users, MAX_TASTES], rows of `shop.categories`; the first `counts` are used.
        colours: [users, MAX_TASTES], preferred colour in that category.
        counts: [users], two or three.
        switches: [users], fraction of the user's time at which the last taste replaces the
            first; NaN for users taste_columns attention moves gradually.
    """

    categories: Ints
    colours: Ints
    counts: Ints
    switches: Doubles

    def attention(self, users: Ints, progress: Doubles) -> Doubles:
        """Return the share of attention of each taste at each visit.

        Args:
            users: [visits].
            progress: [visits], elapsed fraction of the user's time, 0..1.

        Returns:
            [visits, MAX_TASTES], rows sum to 1.
        """
        positions, last = np.arange(MAX_TASTES), self.counts[users, None] - 1
        gradual = np.exp(-(((progress[:, None] - positions / last) / 0.5) ** 2))
        is_later = progress[:, None] >= self.switches[users, None]
        sudden = np.where(is_later, positions > 0, positions < last).astype(np.float64)
        weights = np.where(np.isnan(self.switches[users, None]), gradual, sudden)
        weights = np.where(positions <= last, weights, 0.0)
        shares: Doubles = weights / weights.sum(axis=1, keepdims=True)
        return shares

    def current(self) -> Bools:
        """Mark the tastes that are current at the end of the user's time, [users, MAX_TASTES]."""
        users = np.arange(len(self.counts))
        return self.attention(users, np.ones(len(users))) >= CURRENT


@dataclass(frozen=True)
class Visits:
    """One row per interaction, by user and time; `steps` counts a user's visits from 0."""

    users: Ints
    steps: Ints
    timestamps: Ints
    progress: Doubles


def sample_columns(weights: Doubles, rng: np.random.Generator) -> Ints:
    """Sample a column per row in proportion to the weights; -1 where all weights are 0.

    Exponential sample_columns: the column with the earliest arrival time wins.
    """
    with np.errstate(divide="ignore"):
        arrival_times = rng.standard_exponential(weights.shape) / weights
    return np.where(weights.any(axis=1), arrival_times.argmin(axis=1), -1)


def sample_tastes(shop: Shop, num_users: int, rng: np.random.Generator) -> Tastes:
    """Sample tastes; about half of the next tastes lie in the same department."""
    departments = np.array([category.department_row for category in shop.categories])
    categories = np.zeros((num_users, MAX_TASTES), dtype=np.int64)
    weights = np.tile(shop.category_shares, (num_users, 1))  # [users, categories]
    for position in range(MAX_TASTES):
        categories[:, position] = sample_columns(weights, rng)
        is_near = departments == departments[categories[:, position], None]
        weights = shop.category_shares * np.where(is_near, SAME_DEPARTMENT, 1.0)
        np.put_along_axis(weights, categories[:, : position + 1], 0.0, axis=1)
    is_sudden = rng.random(num_users) < 0.5
    return Tastes(
        categories=categories,
        colours=rng.integers(len(COLOUR_NAMES), size=categories.shape),
        counts=rng.integers(2, MAX_TASTES + 1, size=num_users),
        switches=np.where(is_sudden, rng.uniform(0.3, 0.7, size=num_users), np.nan),
    )


def sample_visits(num_users: int, count: int, rng: np.random.Generator) -> Visits:
    """Distribute the visits: activity is log-normal, and each user has a period of their own."""
    activity = np.minimum(rng.lognormal(sigma=0.7, size=num_users), 4.0)
    extra = count - MIN_VISITS * num_users
    counts = MIN_VISITS + rng.multinomial(extra, activity / activity.sum())
    users = np.repeat(np.arange(num_users), counts)
    first, last = rng.uniform(0, 50, num_users), rng.uniform(130, DAYS, num_users)  # days
    progress = rng.random(count)
    progress = progress[np.lexsort((progress, users))]
    days = first[users] + progress * (last - first)[users]
    return Visits(
        users=users,
        steps=np.arange(count) - np.repeat(np.cumsum(counts) - counts, counts),
        timestamps=OPENING + (days * DAY).astype(np.int64),
        progress=progress,
    )


def sample_items(shop: Shop, tastes: Tastes, visits: Visits, rng: np.random.Generator) -> Ints:
    """Sample the item row of each visit; a user never takes an item twice.

    A visit without a taste, or taste_columns category is exhausted, takes an item by popularity.
    """
    taken = np.zeros((len(tastes.counts), len(shop.titles)), dtype=np.bool_)
    items = np.zeros(len(visits.users), dtype=np.int64)
    is_whim = rng.random(len(items)) < WHIM
    taste_columns = sample_columns(tastes.attention(visits.users, visits.progress), rng)  # [visits]
    for step in range(visits.steps.max() + 1):
        now = np.flatnonzero(visits.steps == step)
        users = visits.users[now]
        rows = _sample_from_categories(shop, tastes, users, taste_columns[now], taken, rng)
        is_open = is_whim[now] | (rows < 0)
        rows[is_open] = sample_columns(shop.popularity * ~taken[users[is_open]], rng)
        taken[users, rows] = True
        items[now] = rows
    return items


def _sample_from_categories(
    shop: Shop,
    tastes: Tastes,
    users: Ints,
    taste_columns: Ints,
    taken: Bools,
    rng: np.random.Generator,
) -> Ints:
    """Sample an item row of the taste's category that is not taken yet; -1 where none is left."""
    members = shop.members[tastes.categories[users, taste_columns]]  # [users, largest]
    colours = tastes.colours[users, taste_columns]
    likes = np.where(shop.colour_rows[members] == colours[:, None], RIGHT_COLOUR, 1.0)
    is_free = (members >= 0) & ~taken[users[:, None], members]
    columns = sample_columns(shop.item_shares[members] * likes * is_free, rng)
    return np.where(columns < 0, -1, members[np.arange(len(users)), columns])
