"""Variance of samplers' estimates of the softmax, from planted demand and without training.

    python -m benchmarks.proposal_variance --items 100000 1000000

For a user with the true demand p and a proposal with the expected counts n, the relative variance
of the estimated sum over the items is about chi2 = sum of p_j^2 / n_j; lower is better. Items that
a proposal never samples are left out of the sum, and their share of the demand is given. Demand is
that of large_shop_visits.py for visits in training, given tastes, style and time of the user. The
cluster map is the planted one; the variance of a learned map is higher.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binom
from tabulate import tabulate

from benchmarks.large_shop import TRAIN_SHARE, Log, generate_log
from benchmarks.large_shop_items import LATENT, STYLES, PlantedItems, plant_items
from benchmarks.large_shop_visits import (
    BESTSELLER,
    INTERACTIONS_PER_USER,
    OTHER_STYLE,
    STEP,
    STRAY,
    Doubles,
    novelty,
    season,
)
from index.arrays import Rows
from index.cluster_map import ClusterMap
from trainer.config import ClustersConfig, TowersConfig
from trainer.data.interactions import ItemLists
from trainer.esans.sampler import EXAMPLE_ITEMS
from trainer.esans.warm_proposal import WarmProposal
from trainer.samplers.config import EsansConfig
from trainer.training_data import BatchLoader, appearance_probability

BATCH = ENCODED = 512
TRAINING_END = 0.88  # time at which the training part ends
INTERACTIONS_PER_ITEM = 5
HEADERS = ("proposal", "chi2", "demand never sampled")

Counts = Callable[[Rows], Doubles]  # positive [1] -> expected counts [items]


@dataclass(frozen=True)
class Shop:
    """Planted items in planted order, with their shares of the training part and their map.

    Attributes:
        planted: items.
        tastes: [users, tastes], cells.
        share: [items], of the interactions.
        in_examples: [items], share of the training examples with the item as target or in the
            history.
        clusters: of the items.
    """

    planted: PlantedItems
    tastes: Rows
    share: Doubles
    in_examples: Doubles
    clusters: ClusterMap


def chi_square(demand: Doubles, counts: Doubles) -> tuple[float, float]:
    """Return the sum of p^2 / n over the items with n > 0, and the demand of the others."""
    is_covered = counts > 0
    covered = demand[is_covered]
    total = float((covered**2 / counts[is_covered]).sum())
    return total, float(demand.sum() - covered.sum())


def build_shop(items: int, seed: int) -> Shop:
    """Generate a shop and the log of its training part."""
    planted = plant_items(items, seed)
    log: Log = generate_log(planted, INTERACTIONS_PER_ITEM * items, seed)
    positions = np.empty(items, dtype=np.int32)
    positions[planted.rows] = np.arange(items)
    train = positions[log.items[: int(TRAIN_SHARE * len(log.items))]]
    counts = np.bincount(train, minlength=items)
    examples = load_examples(log.users[: len(train)], train)
    clusters = planted.cluster[planted.cell]
    centroids = np.random.default_rng(seed).standard_normal((clusters.max() + 1, LATENT))
    return Shop(
        planted,
        log.tastes,
        counts / counts.sum(),
        examples.appearances(items) / len(examples.target_positions),
        ClusterMap(
            codes1=clusters,
            codes2=(planted.cell - planted.cluster_starts[clusters]).astype(np.int32),
            centroids=centroids.astype(np.float32),
            id_hashes=np.arange(items, dtype=np.uint64),
        ),
    )


def load_examples(users: Rows, items: Rows) -> BatchLoader:
    """Load the training examples of interactions in order of time."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users))])
    histories = ItemLists(offsets, items[np.argsort(users, kind="stable")])
    return BatchLoader(histories, True, BATCH, TowersConfig().history_length, seed=0)


def sample_demand(shop: Shop, rng: np.random.Generator) -> Doubles:
    """Sample a user and a time; compute the probability of each item at the next visit."""
    planted, tastes = shop.planted, shop.tastes[rng.integers(len(shop.tastes))]
    tastes = tastes[tastes >= 0]
    time, progress = np.float32(rng.uniform(0.1, TRAINING_END)), rng.random()
    weight = novelty(planted.birth, time)
    weight *= np.where(planted.style == rng.integers(STYLES), 1, OTHER_STYLE)
    regular, best = planted.weight * weight, planted.bestseller_weight * weight
    attention = np.exp(-(((progress - np.arange(len(tastes)) / (len(tastes) - 1)) / 0.5) ** 2))
    attention *= season(planted.cluster[tastes], time)
    demand: Doubles = BESTSELLER * best / best.sum()
    visits = rng.integers(INTERACTIONS_PER_USER)
    for taste, probability in zip(tastes, attention / attention.sum(), strict=True):
        scale = (1 - BESTSELLER) * probability
        first, end = planted.cluster_starts[planted.cluster[taste] + np.arange(2)]
        _add(demand, regular, planted.cell_starts[[first, end]], scale * STRAY)
        for moves in range(visits + 1):
            cell = first + (taste - first + moves) % (end - first)
            walk = scale * (1 - STRAY) * binom.pmf(moves, visits, STEP)
            _add(demand, regular, planted.cell_starts[[cell, cell + 1]], walk)
    return demand / demand.sum()


def _add(demand: Doubles, weight: Doubles, bounds: Rows, scale: float) -> None:
    """Add a distribution over a range of items, if any of them is available."""
    chosen = slice(*bounds)
    total = weight[chosen].sum()
    if total > 0:
        demand[chosen] += scale * weight[chosen] / total


def proposals_of(shop: Shop, rng: np.random.Generator) -> dict[str, Counts]:
    """Build the expected counts of each proposal, for one batch of positives."""
    share, items = shop.share, len(shop.share)
    everything = np.arange(items, dtype=np.int32)
    batch = rng.choice(items, BATCH, p=share).astype(np.int32)
    in_batch = BATCH * share
    power = np.where(share > 0, share**0.75, 0)
    wide = replace(shop.clusters, temperature_share=ClustersConfig().temperature_share)
    warm = WarmProposal(wide, share, EsansConfig())
    uniform = in_batch + ENCODED * shop.clusters.mean_easy_probability(batch, everything)
    easy_share = warm.mean_easy_probability(batch, everything)
    easy = ENCODED * easy_share
    in_examples = appearance_probability(shop.in_examples, BATCH)
    kept = min(1, EXAMPLE_ITEMS / in_examples.sum())
    of_histories = kept * in_examples
    shared = {
        "in-batch": in_batch,
        "mixed (MNS)": in_batch + ENCODED / items,
        "in-batch and popularity^.75": in_batch + ENCODED * power / power.sum(),
        "in-batch and bank of 2,048": in_batch + 2_048 * share,
        "ESANS, paper's easy ones, T .2": uniform,
        "ESANS, easy ones": in_batch + easy,
        "ESANS, 2,048 of the histories, easy ones": of_histories + easy,
        "ESANS, all of the histories, easy ones": in_examples + easy,
    }
    proposals: dict[str, Counts] = {
        name: lambda _, counts=counts: counts for name, counts in shared.items()
    }
    for name, base, count, hard in (
        ("", in_batch, 0, 1),
        ("", in_batch, 256, 1),
        ("", in_batch, 512, 1),
        ("", in_batch, 512, 4),
        ("", in_batch, 512, 16),
        (" 2,048 of the histories,", of_histories, 0, 1),
        (" 2,048 of the histories,", of_histories, 256, 1),
    ):
        proposals[f"ESANS,{name} {count} easy, {hard} hard"] = (
            lambda positive, shared=base + count * easy_share, hard=hard: (
                shared + hard * warm.hard_probability(positive, everything)[0]
            )
        )
    return proposals


def measure(items: int, users: int, seed: int) -> list[tuple[str, float, str]]:
    """Return chi2 of each proposal, averaged over users and without the positive itself."""
    shop, rng = build_shop(items, seed), np.random.default_rng([seed, users])
    proposals = proposals_of(shop, rng)
    results = {name: np.zeros((users, 2)) for name in proposals}
    for user in range(users):
        demand = sample_demand(shop, rng)
        warm = np.where(shop.share > 0, demand, 0)
        positive = rng.choice(items, 1, p=warm / warm.sum()).astype(np.int32)
        demand[positive] = 0
        for name, counts in proposals.items():
            results[name][user] = chi_square(demand, counts(positive))
    means = {name: values.mean(axis=0) for name, values in results.items()}
    return [(name, chi2, f"{100 * missed:.1f} %") for name, (chi2, missed) in means.items()]


def main() -> None:
    """Measure shops of the given sizes; print a table each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for items in args.items:
        print(f"\n{items:,} items, {BATCH} positives and {ENCODED} encoded items per step\n")
        print(tabulate(measure(items, args.users, args.seed), HEADERS, floatfmt=".3f"))


if __name__ == "__main__":
    main()
