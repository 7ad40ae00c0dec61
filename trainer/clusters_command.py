"""The command `clusters`: builds, describes, saves and publishes a cluster map."""

import argparse
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from index.cluster_map import ClusterMap
from index.cluster_map_io import build_metadata, open_cluster_map, save_cluster_map
from index.cluster_map_registry import ClusterMapRegistry
from index.cluster_map_stores import FOLDER, open_cluster_maps
from index.errors import ConfigError, InvalidClusterMapError
from index.fsio import parse_path
from index.store_commands import add_store_options, resolve_store
from trainer.command_options import add_config, check_writable, load_run_config

ABOUT_CLUSTERS = """\
Build the cluster map of a dataset folder, as a run does, and describe it: cluster sizes,
perplexity, agreement with a category column, and the items of three clusters.

With --publish the map is published to the store that trainers and services watch, and becomes
current unless another map is pinned. Suitable for a cron job: if the store is unreachable or
full, nothing changes and the exit status is 1.

examples:
  python -m trainer clusters --data shop/ --category department
  ESANS_REDIS_URL=redis://cache:6379/0 python -m trainer clusters --data shop/ --publish
  python -m trainer clusters --data shop/ --publish --bundles bundles/     # without Redis
  python -m trainer clusters --from map/ --publish --redis redis://cache:6379/0"""


def add_clusters(parser: argparse.ArgumentParser) -> None:
    """Add the options of `clusters`."""
    parser.set_defaults(run=clusters)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=parse_path, metavar="DIR", help="the dataset")
    source.add_argument(
        "--from",
        dest="saved",
        type=parse_path,
        metavar="FOLDER",
        help="publish this map as it is: a folder saved by --out, or a bundle",
    )
    add_config(parser)
    parser.add_argument("--out", type=parse_path, metavar="FOLDER", help="where to save the map")
    parser.add_argument(
        "--category", metavar="COLUMN", help="items column to compare the clusters with"
    )
    parser.add_argument("--publish", action="store_true", help="publish to the store; see above")
    add_store_options(parser, "the maps", f"the maps are in {FOLDER}/")


def clusters(parsed: argparse.Namespace) -> None:
    """Build or open a cluster map, describe it, and save and publish it if requested."""
    if parsed.out:
        check_writable("--out", parsed.out)
    store = open_publish_target(parsed)
    if store is not None:
        with suppress(InvalidClusterMapError):  # publishing repairs a damaged pointer
            store.pointer()  # report an unreachable store before the work
    cluster_map, summary = (
        open_saved_map(parsed.saved) if parsed.saved else build_and_describe_cluster_map(parsed)
    )
    lines = [summary]
    if parsed.out:
        save_cluster_map(cluster_map, parsed.out)
        lines.append(f"saved to {parsed.out}")
    if store is not None:
        from trainer.esans.publish import publish_cluster_map

        lines.append(publish_cluster_map(store, cluster_map))
    print("\n\n".join(lines))


def open_saved_map(folder: Path) -> tuple[ClusterMap, str]:
    """Open a saved map; return it with a one-line summary."""
    cluster_map = open_cluster_map(folder)
    card = build_metadata(cluster_map)
    sizes = f"{card.items:,} items, {card.level_1_codes:,} x {card.level_2_codes} codes"
    return cluster_map, f"{folder}: cluster map {card.version}, {sizes}"


def build_and_describe_cluster_map(parsed: argparse.Namespace) -> tuple[ClusterMap, str]:
    """Build the map of a dataset folder, as a run does; return it with its description."""
    import torch

    from trainer.data.dataset import load_dataset
    from trainer.esans.build_map import build_cluster_map
    from trainer.esans.stats import category_column, describe_cluster_map

    config = load_run_config(parsed)
    torch.set_num_threads(config.training.threads)
    data = load_dataset(parsed.data, config.data.split, config.seed)
    category_column(data.attributes, parsed.category)  # reject an unknown column before the work
    cluster_map = build_cluster_map(data, config.clusters, config.seed, datetime.now(UTC))
    rng = np.random.default_rng(config.seed)
    return cluster_map, describe_cluster_map(cluster_map, data, parsed.category, rng)


def open_publish_target(parsed: argparse.Namespace) -> ClusterMapRegistry | None:
    """Open the store that `clusters` publishes to; None without `--publish`."""
    if not parsed.publish:
        if parsed.saved:
            raise ConfigError(
                "clusters --from: found without --publish, which it requires; add --publish, or "
                "use --data to build a map"
            )
        return None
    url, bundles, namespace = resolve_store(parsed, "clusters --publish")
    return open_cluster_maps(url, bundles / FOLDER, namespace)
