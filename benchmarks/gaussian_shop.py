"""Synthetic catalogue of Gaussian clusters on the unit sphere, and a bundle of it.

    python -m benchmarks.gaussian_shop --items 1000000 --work build/bench

2,000 clusters whose sizes fall as rank^-0.5. An item is its cluster's centroid (a random unit
vector) plus Gaussian noise of norm 1.0, normalized; a query is a centroid plus noise of norm
1.2. The catalogue is hard for an ANN index: neighbours of a query are hardly closer than the
rest of their cluster.

The bundle's user tower is the trainer's, exported but untrained. Its residual is scaled to 1.2
times the norm of the pooled history, so that queries of histories from one cluster are as far
from its centroid as those of the formula.

Attributes: a title. Filters: `half`, `twentieth`, `thousandth` are "true" for random 50 %, 5 %
and 0.1 % of the items; `aisle` has 20 values and `category` 1,000, each whole clusters.
"""

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from index.ann.tuning import TUNING_QUERIES, build_item_index
from index.arrays import Floats, Rows, save_array
from index.bundle.manifest import DatasetFacts, RunFacts
from index.bundle.registry import BundleRegistry
from index.encoders import UserEncoder
from index.metadata import Column, ItemMetadata, build_attributes, build_filters
from index.publish.writer import VECTORS, Contents, write_bundle
from trainer.onnx_export import export_user_tower
from trainer.towers import UserTower

WIDTH, CLUSTERS, HISTORY_LENGTH = 64, 2_000, 50
ITEM_NOISE, QUERY_NOISE = 1.0, 1.2  # norm relative to a centroid
AISLES, CATEGORIES = 20, 1_000
SHARES = {"half": 0.5, "twentieth": 0.05, "thousandth": 0.001}
PROBES = 8


@dataclass(frozen=True)
class Shop:
    """The catalogue.

    Attributes:
        vectors: [items, WIDTH], float32, unit norm.
        cluster: [items], int32.
        centroids: [CLUSTERS, WIDTH], float32, unit norm.
    """

    vectors: Floats
    cluster: Rows
    centroids: Floats


def make_shop(items: int, seed: int) -> Shop:
    """Generate the catalogue; deterministic in its arguments."""
    rng = np.random.default_rng([seed, items])
    centroids = unit(rng.standard_normal((CLUSTERS, WIDTH), dtype=np.float32))
    sizes = np.arange(1, CLUSTERS + 1) ** -0.5
    cluster = rng.choice(CLUSTERS, size=items, p=sizes / sizes.sum()).astype(np.int32)
    return Shop(around(centroids[cluster], ITEM_NOISE, rng), cluster, centroids)


def make_queries(shop: Shop, count: int, seed: int) -> Floats:
    """Generate queries near the clusters, in proportion to their sizes."""
    rng = np.random.default_rng([seed, count, 1])
    near = shop.cluster[rng.integers(len(shop.cluster), size=count)]
    return around(shop.centroids[near], QUERY_NOISE, rng)


def make_histories(shop: Shop, count: int, seed: int, longest: int = 50) -> list[Rows]:
    """Generate histories of 1 to `longest` items of one cluster each, oldest first."""
    rng = np.random.default_rng([seed, count, 2])
    order = np.argsort(shop.cluster, kind="stable").astype(np.int32)
    bounds = np.searchsorted(shop.cluster[order], np.arange(CLUSTERS + 1))
    histories = []
    for item in rng.integers(len(shop.cluster), size=count).tolist():
        own = order[bounds[shop.cluster[item]] : bounds[shop.cluster[item] + 1]]
        length = min(int(rng.integers(1, longest + 1)), len(own))
        histories.append(rng.choice(own, size=length, replace=False))
    return histories


def around(centroids: Floats, noise: float, rng: np.random.Generator) -> Floats:
    """Generate a unit vector near each centroid; `noise` is the norm of the added noise."""
    scale = np.float32(noise / WIDTH**0.5)
    points = rng.standard_normal(centroids.shape, dtype=np.float32)
    points *= scale
    points += centroids
    return unit(points)


def unit(rows: Floats) -> Floats:
    """Normalize rows in place."""
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def id_of(row: int) -> str:
    """Return the id of an item."""
    return f"item-{row:07d}"


def make_bundle(items: int, folder: Path, seed: int) -> Path:
    """Publish a bundle of the catalogue; return the folder for `--bundles`.

    An existing bundle in `folder` is reused.
    """
    bundles = folder / f"gaussian-{items}-{seed}"
    registry = BundleRegistry(bundles)
    if registry.pointer() is None:
        with registry.stage() as staged:
            stage(staged, make_shop(items, seed), seed)
            version = registry.publish(staged, datetime.now(UTC))
        registry.make_current(version)
    return bundles


def stage(staged: Path, shop: Shop, seed: int) -> None:
    """Write the bundle into a staged folder."""
    items = len(shop.vectors)
    histories = make_histories(shop, TUNING_QUERIES, seed)
    export_user_tower(make_tower(shop, histories, seed), staged / "user_encoder.onnx")
    (staged / "towers.safetensors").write_bytes(b"")
    ids = [id_of(row) for row in range(items)]
    pq.write_table(pa.table({"item_id": ids}), staged / "items.parquet")
    encoder = UserEncoder(staged / "user_encoder.onnx", HISTORY_LENGTH)
    contents = Contents(
        item_ids=ids,
        vectors=shop.vectors,
        counts=np.random.default_rng([seed, 3]).zipf(1.5, size=items).clip(max=10**6),
        histories=None,
        tuning_histories=histories,
        self_test_histories=histories[:PROBES],
        self_test_queries=encoder.encode_histories(shop.vectors, histories[:PROBES]),
        metadata=describe(shop, seed),
    )
    build = partial(build_item_index, seed=seed)
    save_array(staged / VECTORS, shop.vectors)
    write_bundle(staged, contents, facts(seed), build)


def make_tower(shop: Shop, histories: list[Rows], seed: int) -> UserTower:
    """Build an untrained tower; its residual has zero mean and QUERY_NOISE times the input norm."""
    torch.manual_seed(seed)
    tower = UserTower(WIDTH, HISTORY_LENGTH, is_ordered=True).eval()
    pooled = torch.from_numpy(np.stack([shop.vectors[rows].mean(axis=0) for rows in histories]))
    last = tower.mix[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias -= tower.mix(pooled).mean(dim=0)
        length = tower.mix(pooled).norm(dim=1).mean() / pooled.norm(dim=1).mean()
        last.weight *= QUERY_NOISE / length
        last.bias *= QUERY_NOISE / length
    return tower


def describe(shop: Shop, seed: int) -> ItemMetadata:
    """Build titles and filters."""
    items = len(shop.cluster)
    clusters = shop.cluster.tolist()
    attributes = build_attributes(
        {"title": f"Thing {row} of kind {cluster}"} for row, cluster in enumerate(clusters)
    )
    columns = {name: random_column(share, items, seed) for name, share in SHARES.items()}
    everything = np.arange(items, dtype=np.int32)
    for name, count in (("aisle", AISLES), ("category", CATEGORIES)):
        values = [str(value) for value in range(count)]
        columns[name] = Column(values, everything, shop.cluster % count)
    filters = build_filters(columns)
    return ItemMetadata(["title"], attributes, filters.value_counts(), filters)


def random_column(share: float, items: int, seed: int) -> Column:
    """Build a column that is "true" for a random share of the items."""
    rng = np.random.default_rng([seed, round(1 / share)])
    rows = np.flatnonzero(rng.random(items) < share).astype(np.int32)
    return Column(["true"], rows, np.zeros(len(rows), dtype=np.int32))


def facts(seed: int) -> RunFacts:
    """Build the manifest's facts of an untrained bundle."""
    dataset = DatasetFacts(
        fingerprint=f"gaussian shop, seed {seed}",
        split="none",
        is_ordered=True,
        users=0,
        interactions=0,
        training_interactions=0,
        notes=["generated: no model was trained"],
    )
    return RunFacts(
        name="gaussian-shop",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset=dataset,
        history_length=HISTORY_LENGTH,
        modalities={},
        cluster_maps=[],
        run={"seed": seed},
        libraries={},
    )


def main() -> None:
    """Build a bundle; print its folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("build/bench"), metavar="DIR")
    args = parser.parse_args()
    print(make_bundle(args.items, args.work, args.seed))


if __name__ == "__main__":
    main()
