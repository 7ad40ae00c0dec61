"""Users of a large generated shop and their interactions, by blocks of users.

A user has tastes in several clusters; attention moves from the first to the last while the
popularity of clusters rises and falls. Visits come in sessions of one taste, which walk through
the cells of its cluster in their order. Within a cell the user takes popular, recent items of
the user's style, never one twice, and sometimes a bestseller of the whole shop instead.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.large_shop_items import STYLES, PlantedItems
from index.arrays import Floats, Rows

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK_USERS = 16_384  # a random stream each
INTERACTIONS_PER_USER, MIN_INTERACTIONS = 20, 5
TASTES = 4  # per user, at most
RELATED = 0.5  # probability that the next taste is in one of the next three clusters
SESSION = 0.3  # probability that a visit begins a session: its taste may differ
STEP = 0.15  # probability that a visit moves on to the next cell
STRAY = 0.15  # probability of any cell of the cluster
BESTSELLER = 0.1  # probability of an item by popularity alone
OTHER_STYLE = 0.25  # weight of items of another style
OLD_WEIGHT, AGEING = 0.4, 0.15  # weight of old items; time in which a new one becomes old
SEASON = 0.8  # amplitude of a cluster's popularity over time
ROUNDS, NARROW_ROUNDS = 32, 16  # draws until a visit is dropped; until it widens its choice


@dataclass(frozen=True)
class Demand:
    """Cumulated popularity in planted order; [items + 1] each."""

    regular: Doubles
    bestsellers: Doubles


@dataclass(frozen=True)
class Schedule:
    """Visits of a block of users, by user and time.

    Attributes:
        users: [visits].
        progress: [visits], fraction of the user's time.
        times: [visits], fraction of the log's time.
    """

    users: Ints
    progress: Floats
    times: Floats


@dataclass(frozen=True)
class Visits:
    """Interactions of a block of users, by user and time.

    Attributes:
        users: [visits].
        items: [visits], in planted order.
        times: [visits], fraction of the log's time.
        tastes: [users, TASTES], cells, in chronological order; -1 where there is none.
    """

    users: Ints
    items: Ints
    times: Floats
    tastes: Rows


@dataclass(frozen=True)
class Choice:
    """What each visit chooses from, [visits]: one of the items low..high, or of the bestsellers.

    If that fails often, one of the items wide_low..wide_high.
    """

    low: Ints
    high: Ints
    wide_low: Ints
    wide_high: Ints
    is_bestseller: NDArray[np.bool_]


def build_demand(planted: PlantedItems) -> Demand:
    """Cumulate the popularity of all items."""
    return Demand(_cumulate(planted.weight), _cumulate(planted.bestseller_weight))


def _cumulate(weight: Floats) -> Doubles:
    total = np.zeros(len(weight) + 1)
    np.cumsum(weight, out=total[1:], dtype=np.float64)
    return total


def sample_lengths(interactions: int, seed: int) -> Ints:
    """Distribute the interactions over users; activity is log-normal; [users]."""
    users = max(interactions // INTERACTIONS_PER_USER, 1)
    rng = np.random.default_rng([seed, interactions, 3])
    activity = np.minimum(rng.lognormal(sigma=0.8, size=users), 8.0)
    extra = rng.multinomial(interactions - MIN_INTERACTIONS * users, activity / activity.sum())
    return MIN_INTERACTIONS + extra


def sample_visits(
    planted: PlantedItems, demand: Demand, lengths: Ints, rng: np.random.Generator
) -> Visits:
    """Generate the interactions of users with the given numbers of visits."""
    tastes = _sample_tastes(planted, demand, len(lengths), rng)
    schedule = _schedule(lengths, rng)
    homes = _attend(planted, tastes, schedule, rng)
    choice = _walk(planted, homes, schedule.users, rng)
    items = _take(planted, demand, schedule, choice, rng)
    is_taken = items >= 0
    return Visits(schedule.users[is_taken], items[is_taken], schedule.times[is_taken], tastes)


def season(cluster: Rows, times: Floats) -> Floats:
    """Return the popularity of clusters at given times, relative to their mean."""
    phase = cluster * np.float32(0.618034)
    return 1 + np.float32(SEASON) * np.sin(np.float32(2 * np.pi) * (times + phase))


def novelty(birth: Floats, times: Floats) -> Floats:
    """Return the weight of items at given times: 0 before they appear, then 1 and falling."""
    age = times - birth
    weight = OLD_WEIGHT + (1 - OLD_WEIGHT) * np.exp(-np.maximum(age, 0) / AGEING)
    return np.where(age < 0, 0, weight)


def _sample_tastes(
    planted: PlantedItems, demand: Demand, users: int, rng: np.random.Generator
) -> Rows:
    """Sample two to TASTES cells per user by popularity; [users, TASTES], -1 where there is none.

    A taste is often in a cluster close to that of the taste before.
    """
    clusters = len(planted.cluster_starts) - 1
    starts = planted.cell_starts[planted.cluster_starts]  # first item of each cluster
    tastes = np.empty((users, TASTES), dtype=np.int32)
    cluster = np.zeros(users, dtype=np.int32)
    for slot in range(TASTES):
        is_related = (rng.random(users) < RELATED) & (slot > 0)
        near = (cluster + rng.integers(1, 4, users)) % clusters
        low = np.where(is_related, starts[near], 0)
        high = np.where(is_related, starts[near + 1], starts[-1])
        tastes[:, slot] = planted.cell[_sample(demand.regular, low, high, rng)]
        cluster = planted.cluster[tastes[:, slot]]
    counts = rng.integers(2, TASTES + 1, users)
    return np.where(np.arange(TASTES) < counts[:, None], tastes, np.int32(-1))


def _schedule(lengths: Ints, rng: np.random.Generator) -> Schedule:
    """Sample when the users visit; each has a period of the log."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    progress = rng.random(len(users), dtype=np.float32)
    progress = progress[np.lexsort((progress, users))]
    first = rng.uniform(0, 0.9, len(lengths)).astype(np.float32)
    span = np.minimum(rng.uniform(0.1, 0.8, len(lengths)), 1 - first).astype(np.float32)
    return Schedule(users, progress, first[users] + progress * span[users])


def _attend(
    planted: PlantedItems, tastes: Rows, schedule: Schedule, rng: np.random.Generator
) -> Ints:
    """Sample the taste of each visit, the same within a session; [visits], cells."""
    users, slots = schedule.users, np.arange(TASTES, dtype=np.float32)
    last = (tastes >= 0).sum(axis=1).astype(np.float32)[users, None] - 1
    weights = np.exp(-(((schedule.progress[:, None] - slots / last) / 0.5) ** 2))
    weights *= season(planted.cluster[tastes[users]], schedule.times[:, None])
    weights[slots > last] = 0
    with np.errstate(divide="ignore"):  # the column with the earliest arrival time wins
        chosen = (rng.standard_exponential(weights.shape) / weights).argmin(axis=1)
    begins = rng.random(len(users)) < SESSION
    begins |= np.diff(users, prepend=-1) > 0
    first_visit = np.maximum.accumulate(np.where(begins, np.arange(len(users)), 0))
    attended: Ints = tastes[users, chosen[first_visit]]
    return attended


def _walk(planted: PlantedItems, homes: Ints, users: Ints, rng: np.random.Generator) -> Choice:
    """Move on through the clusters of the tastes; sometimes stray, or take a bestseller."""
    moves: Ints = np.cumsum(rng.random(len(users)) < STEP, dtype=np.int64)
    moves -= moves[np.searchsorted(users, users)]  # since the user's first visit
    cluster = planted.cluster[homes]
    first, end = planted.cluster_starts[cluster], planted.cluster_starts[cluster + 1]
    cell = first + (homes - first + moves) % (end - first)
    is_bestseller = rng.random(len(users)) < BESTSELLER
    wide_low = np.where(is_bestseller, 0, planted.cell_starts[first])
    wide_high = np.where(is_bestseller, planted.cell_starts[-1], planted.cell_starts[end])
    is_wide = is_bestseller | (rng.random(len(users)) < STRAY)
    low = np.where(is_wide, wide_low, planted.cell_starts[cell])
    high = np.where(is_wide, wide_high, planted.cell_starts[cell + 1])
    return Choice(low, high, wide_low, wide_high, is_bestseller)


def _take(
    planted: PlantedItems,
    demand: Demand,
    schedule: Schedule,
    choice: Choice,
    rng: np.random.Generator,
) -> Ints:
    """Sample the item of each visit, none twice per user; -1 where ROUNDS were not enough."""
    styles = rng.integers(STYLES, size=schedule.users[-1] + 1, dtype=np.int8)[schedule.users]
    items = np.full(len(styles), -1, dtype=np.int64)
    low, high = choice.low, choice.high
    for number in range(ROUNDS):
        if number == NARROW_ROUNDS:
            low, high = choice.wide_low, choice.wide_high
        rows = np.flatnonzero(items < 0)
        is_best = choice.is_bestseller[rows]
        sampled = np.empty(len(rows), dtype=np.int64)
        for table, mask in ((demand.regular, ~is_best), (demand.bestsellers, is_best)):
            sampled[mask] = _sample(table, low[rows[mask]], high[rows[mask]], rng)
        weight = novelty(planted.birth[sampled], schedule.times[rows])
        weight *= np.where(planted.style[sampled] == styles[rows], 1, OTHER_STYLE)
        items[rows] = np.where(rng.random(len(rows)) < weight, sampled, -1)
        _drop_repeats(items, schedule.users, len(planted.cell))
    return items


def _sample(table: Doubles, low: Ints, high: Ints, rng: np.random.Generator) -> Ints:
    """Sample one of the items low..high in proportion to their share of a cumulated table."""
    points = table[low] + rng.random(len(low)) * (table[high] - table[low])
    return np.clip(np.searchsorted(table, points, side="right") - 1, low, high - 1)


def _drop_repeats(items: Ints, users: Ints, num_items: int) -> None:
    """Set all but the first of equal (user, item) pairs to -1."""
    rows = np.flatnonzero(items >= 0)
    _, first = np.unique(users[rows] * num_items + items[rows], return_index=True)
    kept = items[rows[first]]
    items[rows] = -1
    items[rows[first]] = kept
