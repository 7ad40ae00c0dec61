"""The part of `make demo` that shows the cluster map: sample clusters, negatives, hot swap."""

import json
import textwrap
from pathlib import Path

import httpx
import numpy as np

from index.bundle.registry import BundleRegistry
from index.cluster_map_io import open_cluster_map
from trainer.data.dataset import Dataset
from trainer.esans.stats import sample_clusters

NEGATIVES = 3
SHOWN_CHARACTERS = 400


def show_clusters(
    url: str, folder: Path, bundles: Path, data: Dataset, titles: dict[str, str]
) -> None:
    """Print sample clusters, and the calls that return the map and negatives of an item.

    Args:
        url: of the service.
        folder: of the dataset.
        bundles: folder of bundles; the current one has a cluster map.
        data: the dataset.
        titles: title of each item by its id; negatives of the first are sampled.
    """
    clusters = open_cluster_map(BundleRegistry(bundles).current())
    print("\ncluster map, which negatives are sampled from in training; three of its clusters:")
    for example in sample_clusters(clusters, data, np.random.default_rng(0)):
        print(textwrap.indent(example, "    "))
    print(f"\ncurl -s {url}/clusters")
    print(shorten(httpx.get(f"{url}/clusters", timeout=10, trust_env=False)))
    positive = next(iter(titles))
    query = {"positives": [positive], "easy": NEGATIVES, "hard": NEGATIVES, "seed": 1}
    body = json.dumps(query)
    print(f"\ncurl -s {url}/negatives -H 'content-type: application/json' -d '{body}'")
    response = httpx.post(f"{url}/negatives", json=query, timeout=10, trust_env=False)
    print(shorten(response))
    print(f"\nnegatives of {titles[positive]}:")
    for kind in ("easy", "hard"):
        for item_id in response.json()[kind][0]:
            print(f"    {kind}  {titles[item_id]}")
    print(
        "\nReplace the map while the service runs (it follows within seconds, see /clusters):\n"
        f"    .venv/bin/python -m trainer clusters --data {folder} --seed 1 --publish "
        f"--bundles {bundles}\n"
        "and while a training runs: make demo-swap"
    )


def shorten(response: httpx.Response) -> str:
    """Return the beginning of a successful response."""
    text = json.dumps(response.raise_for_status().json())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} ..."
