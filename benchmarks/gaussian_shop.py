"""A large catalogue by formula: Gaussian clusters on the sphere, and a bundle that serves it.

    python -m benchmarks.gaussian_shop --items 1000000 --work build/bench

2,000 clusters whose sizes fall as rank^-0.5. An item is its cluster's centre (a random unit
vector) plus Gaussian noise 1.0 times as long as the centre, on the unit sphere; a query is a
centre plus noise 1.2 times as long. The catalogue is hard for an index: neighbours of a query
are hardly nearer than the rest of their cluster.

The bundle's user tower is the trainer's own, exported as any, but untrained. Its residual part
is scaled so that what it adds is 1.2 times as long as the pooled history: queries of histories
from one cluster then are as far from its centre as those of the formula, and fixed, so that
neighbours and search effort are those of the formula too.

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
from index.arrays import Floats, Rows
from index.bundle.manifest import DatasetFacts, RunFacts
from index.bundle.registry import BundleRegistry
from index.encoders import UserEncoder
from index.metadata import Column, ItemMetadata, build_attributes, build_filters
from index.publish.writer import Contents, write_bundle
from trainer.onnx_export import export_user_tower
from trainer.towers import UserTower

WIDTH, CLUSTERS, HISTORY_LENGTH = 64, 2_000, 50
ITEM_NOISE, QUERY_NOISE = 1.0, 1.2  # times as long as a centre
AISLES, CATEGORIES = 20, 1_000
SHARES = {"half": 0.5, "twentieth": 0.05, "thousandth": 0.001}
PROBES = 8


@dataclass(frozen=True)
class Shop:
    """The catalogue.

    vectors   [items, WIDTH]     float32 unit rows
    cluster   [items]            int32, of each item
    centres   [CLUSTERS, WIDTH]  float32 unit rows
    """

    vectors: Floats
    cluster: Rows
    centres: Floats


def make_shop(items: int, seed: int) -> Shop:
    """Make the catalogue; the same arguments make the same."""
    rng = np.random.default_rng([seed, items])
    centres = unit(rng.standard_normal((CLUSTERS, WIDTH), dtype=np.float32))
    sizes = np.arange(1, CLUSTERS + 1) ** -0.5
    cluster = rng.choice(CLUSTERS, size=items, p=sizes / sizes.sum()).astype(np.int32)
    return Shop(around(centres[cluster], ITEM_NOISE, rng), cluster, centres)


def make_queries(shop: Shop, count: int, seed: int) -> Floats:
    """Make queries by the formula, near clusters as often as there are items in them."""
    rng = np.random.default_rng([seed, count, 1])
    near = shop.cluster[rng.integers(len(shop.cluster), size=count)]
    return around(shop.centres[near], QUERY_NOISE, rng)


def make_histories(shop: Shop, count: int, seed: int, longest: int = 50) -> list[Rows]:
    """Make histories of 1 to `longest` items of one cluster each, oldest first."""
    rng = np.random.default_rng([seed, count, 2])
    order = np.argsort(shop.cluster, kind="stable").astype(np.int32)
    bounds = np.searchsorted(shop.cluster[order], np.arange(CLUSTERS + 1))
    histories = []
    for item in rng.integers(len(shop.cluster), size=count).tolist():
        own = order[bounds[shop.cluster[item]] : bounds[shop.cluster[item] + 1]]
        length = min(int(rng.integers(1, longest + 1)), len(own))
        histories.append(rng.choice(own, size=length, replace=False))
    return histories


def around(centres: Floats, noise: float, rng: np.random.Generator) -> Floats:
    """Put a point near each centre: noise so many times as long, then onto the sphere."""
    scale = np.float32(noise / WIDTH**0.5)
    points = rng.standard_normal(centres.shape, dtype=np.float32)
    points *= scale
    points += centres
    return unit(points)


def unit(rows: Floats) -> Floats:
    """Bring rows onto the unit sphere."""
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def id_of(row: int) -> str:
    """Return the id of an item."""
    return f"item-{row:07d}"


def make_bundle(items: int, folder: Path, seed: int) -> Path:
    """Publish a bundle of so many items; return the folder of bundles, for `--bundles`.

    Made once: where `folder` holds it already, it is used again.
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
    """Write the whole bundle into a staged folder."""
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
    write_bundle(staged, contents, facts(seed), build)


def make_tower(shop: Shop, histories: list[Rows], seed: int) -> UserTower:
    """Make an untrained tower whose residual is centred, and QUERY_NOISE times its input."""
    torch.manual_seed(seed)
    tower = UserTower(WIDTH, HISTORY_LENGTH, is_ordered=True).eval()
    pooled = torch.from_numpy(np.stack([shop.vectors[one].mean(axis=0) for one in histories]))
    last = tower.mix[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias -= tower.mix(pooled).mean(dim=0)
        length = tower.mix(pooled).norm(dim=1).mean() / pooled.norm(dim=1).mean()
        last.weight *= QUERY_NOISE / length
        last.bias *= QUERY_NOISE / length
    return tower


def describe(shop: Shop, seed: int) -> ItemMetadata:
    """Make a title for each item, and the filters."""
    items = len(shop.cluster)
    clusters = shop.cluster.tolist()
    told = build_attributes(
        {"title": f"Thing {row} of kind {cluster}"} for row, cluster in enumerate(clusters)
    )
    columns = {name: chosen(share, items, seed) for name, share in SHARES.items()}
    everything = np.arange(items, dtype=np.int32)
    for name, count in (("aisle", AISLES), ("category", CATEGORIES)):
        values = [str(value) for value in range(count)]
        columns[name] = Column(values, everything, shop.cluster % count)
    filters = build_filters(columns)
    return ItemMetadata(["title"], told, filters.value_counts(), filters)


def chosen(share: float, items: int, seed: int) -> Column:
    """Choose items at random; the others have no value."""
    rng = np.random.default_rng([seed, round(1 / share)])
    rows = np.flatnonzero(rng.random(items) < share).astype(np.int32)
    return Column(["true"], rows, np.zeros(len(rows), dtype=np.int32))


def facts(seed: int) -> RunFacts:
    """Tell in the manifest that nothing was trained."""
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
    """Make a bundle, and say where."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("build/bench"), metavar="DIR")
    asked = parser.parse_args()
    print(make_bundle(asked.items, asked.work, asked.seed))


if __name__ == "__main__":
    main()
