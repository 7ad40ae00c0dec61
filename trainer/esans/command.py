"""`python -m trainer clusters`: a cluster map alone, made as a run makes it, and described."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from index.cluster_map import ClusterMap
from index.cluster_map_io import card_of, open_cluster_map, save_cluster_map
from index.cluster_map_registry import ClusterMapRegistry
from index.errors import ConfigError
from index.storage.address import URL_VARIABLE
from trainer.config import RunConfig
from trainer.data.dataset import load_dataset
from trainer.esans.build_map import build_cluster_map
from trainer.esans.publish import publish_map
from trainer.esans.stats import category_column, describe_map
from trainer.options import config_of, open_store, url_of


def make_or_open(parsed: argparse.Namespace) -> str:
    """Make a map or open a saved one, save and publish it where asked; return what to tell.

    Raises DatasetError, ConfigError, FaultyClusterMapError, ClusterStoreError.
    """
    store = store_of(parsed)
    if store is not None:
        store.pointer()  # a store that is away is told before the work, not after
    if parsed.saved:
        found, told = open_saved(parsed)
    else:
        found, told = make_and_describe(config_of(parsed), parsed.data, parsed.category)
    lines = [told]
    if parsed.out:
        save_cluster_map(found, parsed.out)
        lines.append(f"saved to {parsed.out}")
    if store is not None:
        lines.append(publish_map(store, found))
    return "\n\n".join(lines)


def store_of(parsed: argparse.Namespace) -> ClusterMapRegistry | None:
    """Return the store to publish in, None where nothing is to be published."""
    if not parsed.publish:
        return None
    url = parsed.redis if parsed.bundles else url_of(parsed)
    if not url and not parsed.bundles:
        raise ConfigError(
            "clusters --publish: no store is named, expected one; give --redis URL (or set "
            f"{URL_VARIABLE}), or --bundles DIR for the store among the bundles"
        )
    return open_store(url, parsed.bundles or Path(), parsed)


def open_saved(parsed: argparse.Namespace) -> tuple[ClusterMap, str]:
    """Open a saved map; return it and what to tell."""
    if not parsed.publish:
        raise ConfigError(
            "clusters --from: says which map to publish, expected beside --publish; add that, "
            "or give --data to make a map"
        )
    found = open_cluster_map(parsed.saved)
    card = card_of(found)
    told = f"{card.items:,} items, {card.level_1_codes:,} x {card.level_2_codes} codes"
    return found, f"{parsed.saved}: cluster map {card.version}, {told}"


def make_and_describe(
    config: RunConfig, folder: Path, category: str | None
) -> tuple[ClusterMap, str]:
    """Make the map of a dataset folder; return it and what to tell.

    Raises DatasetError; ConfigError for a modality or a category column that is not there.
    """
    torch.set_num_threads(config.training.threads)
    data = load_dataset(folder, config.data.split, config.seed)
    category_column(data.attributes, category)  # a misspelt one is told before the work, not after
    found = build_cluster_map(data, config.clusters, config.seed, datetime.now(UTC))
    return found, describe_map(found, data, category, np.random.default_rng(config.seed))
