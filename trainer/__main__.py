"""`python -m trainer`: train on a dataset folder and publish a bundle.

Nothing slow is imported before a command needs it: torch takes seconds.
"""

import argparse
import os
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from index.bundle.registry import BundleRegistry
from index.cluster_map import ClusterMap
from index.cluster_map_io import card_of, open_cluster_map, save_cluster_map
from index.cluster_map_registry import FOLDER, ClusterMapRegistry, open_cluster_maps
from index.errors import ConfigError, EsansError
from index.storage.address import address_from, namespace_from
from index.store_commands import add_redis_options, add_store_options, store_of

if TYPE_CHECKING:
    from trainer.config import RunConfig

ABOUT_RUN = """\
Train on a dataset folder, measure what was trained, publish it and make it current.

DIR holds interactions.parquet or .csv (user_id, item_id, and timestamp or seq_pos where known)
and items.parquet (item_id, any attributes, features as list columns) with features_NAME.npy
beside it, one row per item. See the README for the whole list.

A killed run goes on where it was: give the same command again.

A run whose sampler draws from a cluster map publishes it to the store, too. With --follow it
draws from the map that is current there, and swaps to a new one between two steps; the manifest
tells every map and its first step. Trouble with the store is told, and stops nothing.

examples:
  python -m trainer run --data shop/ --bundles bundles/
  ESANS_REDIS_URL=redis://cache:6379/0 python -m trainer run --data shop/ --bundles bundles/ \\
      --config esans.toml --follow"""
ABOUT_CLUSTERS = """\
Make the cluster map of a dataset folder, as a run does, and describe it: sizes, perplexity,
agreement with a category column, and the items of three clusters, to judge it by.

With --publish it goes to the store that trainers and services follow, and becomes current
there, unless a pin holds another map. That is the job for a timer: the exit status is 1 where
the store was away or full, and then nothing was changed.

examples:
  python -m trainer clusters --data shop/ --category department
  ESANS_REDIS_URL=redis://cache:6379/0 python -m trainer clusters --data shop/ --publish
  python -m trainer clusters --data shop/ --publish --bundles bundles/     # without Redis
  python -m trainer clusters --from map/ --publish --redis redis://cache:6379/0"""
ABOUT_REPORT = """\
Draw a published run as one HTML file that needs no network.

example: python -m trainer report --bundles bundles/"""
REMEDY = (
    "what was current still is; see whether the disk is full or may not be written to, then "
    "give the same command again: it goes on from its last checkpoint"
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status (0 done, 1 refused with a reason)."""
    parsed = build_parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except EsansError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        place = getattr(parsed, "bundles", None) or getattr(parsed, "out", None) or "the output"
        print(f"{place}: the run was stopped by the system ({error}); {REMEDY}", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Learn two towers from interactions, and publish them as a bundle.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run(add("run", help="train, measure, publish", description=ABOUT_RUN))
    told = "make, describe and publish a cluster map"
    add_clusters(add("clusters", help=told, description=ABOUT_CLUSTERS))
    told = "draw a published run, as one HTML file"
    add_report(add("report", help=told, description=ABOUT_REPORT))
    add("config", help="print every setting with its meaning").set_defaults(run=explain)
    return parser


def add_run(parser: argparse.ArgumentParser) -> None:
    """Describe the options of `run`."""
    parser.set_defaults(run=run)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the dataset")
    add_config(parser)
    parser.add_argument(
        "--bundles", type=Path, required=True, metavar="DIR", help="where bundles are published"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="make it current even where popularity measures better",
    )
    parser.add_argument(
        "--skip",
        choices=("never", "if-any", "if-same"),
        default="never",
        help="do nothing where a bundle is current (if-any), or one made from the same data "
        "and configuration (if-same); default: never",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="draw negatives from the store's current cluster map, swapped between two steps",
    )
    what = f"the cluster maps; without any they lie in {FOLDER}/ among the bundles"
    add_redis_options(parser, parser, what)


def add_clusters(parser: argparse.ArgumentParser) -> None:
    """Describe the options of `clusters`."""
    parser.set_defaults(run=clusters)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="DIR", help="the dataset")
    source.add_argument(
        "--from",
        dest="saved",
        type=Path,
        metavar="FOLDER",
        help="a map that --out saved, or a bundle: published as it is, none is made",
    )
    add_config(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to save the map")
    parser.add_argument("--category", metavar="COLUMN", help="of the items, to compare with")
    parser.add_argument("--publish", action="store_true", help="into the store; see above")
    add_store_options(parser, "the maps", f"the maps lie in {FOLDER}/")


def add_report(parser: argparse.ArgumentParser) -> None:
    """Describe the options of `report`."""
    parser.set_defaults(run=report)
    told = "where a run was published"
    parser.add_argument("--bundles", type=Path, required=True, metavar="DIR", help=told)
    parser.add_argument("--version", metavar="VERSION", help="of the bundle; default: current")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="what to write, never inside a bundle; default: %(default)s",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Describe what `config_of` reads."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML; see `python -m trainer config`"
    )
    parser.add_argument("--seed", type=int, metavar="SEED", help="overrides the file's seed")


def run(parsed: argparse.Namespace) -> None:
    """Train and publish, unless there is nothing to do."""
    if parsed.skip == "if-any" and BundleRegistry(parsed.bundles).pointer():
        print(f"{parsed.bundles}: holds a current bundle, nothing to do")
        return
    from trainer.data.dataset import load_dataset
    from trainer.pipeline import RunOptions, is_current, run as run_pipeline

    config = config_of(parsed)
    url = parsed.redis or address_from(os.environ)
    namespace = parsed.namespace or namespace_from(os.environ)
    store = open_cluster_maps(url, parsed.bundles / FOLDER, namespace)
    if parsed.skip == "if-same":
        data = load_dataset(parsed.data, config.data.split, config.seed)
        if is_current(config, data, parsed.bundles):
            print(f"{parsed.bundles}: the current bundle is of this data and configuration")
            return
    options = RunOptions(parsed.data, parsed.bundles, store, parsed.force, parsed.follow)
    version = run_pipeline(config, options)
    print(
        f"\npublished {version} and made it current\n"
        f"serve it: python -m service --bundles {parsed.bundles}"
    )


def clusters(parsed: argparse.Namespace) -> None:
    """Make a map or open a saved one, save and publish it where asked; tell of each."""
    store = publish_target(parsed)
    if store is not None:
        store.pointer()  # a store that is away is told before the work, not after
    found, told = open_saved(parsed.saved) if parsed.saved else make_and_describe(parsed)
    lines = [told]
    if parsed.out:
        save_cluster_map(found, parsed.out)
        lines.append(f"saved to {parsed.out}")
    if store is not None:
        from trainer.esans.publish import publish_cluster_map

        lines.append(publish_cluster_map(store, found))
    print("\n\n".join(lines))


def open_saved(folder: Path) -> tuple[ClusterMap, str]:
    """Open a saved map; return it and what to tell."""
    found = open_cluster_map(folder)
    card = card_of(found)
    told = f"{card.items:,} items, {card.level_1_codes:,} x {card.level_2_codes} codes"
    return found, f"{folder}: cluster map {card.version}, {told}"


def make_and_describe(parsed: argparse.Namespace) -> tuple[ClusterMap, str]:
    """Make the map of a dataset folder, as a run makes it; return it and what to tell."""
    import torch

    from trainer.data.dataset import load_dataset
    from trainer.esans.build_map import build_cluster_map
    from trainer.esans.stats import category_column, describe_cluster_map

    config = config_of(parsed)
    torch.set_num_threads(config.training.threads)
    data = load_dataset(parsed.data, config.data.split, config.seed)
    category_column(data.attributes, parsed.category)  # a misspelt one is told before the work
    found = build_cluster_map(data, config.clusters, config.seed, datetime.now(UTC))
    return found, describe_cluster_map(
        found, data, parsed.category, np.random.default_rng(config.seed)
    )


def report(parsed: argparse.Namespace) -> None:
    """Write the report of a run."""
    from trainer.report.run_report import write_run_report

    write_run_report(parsed.bundles, parsed.version, parsed.out)
    print(f"wrote {parsed.out}; open it in a browser, it needs no network")


def explain(_: argparse.Namespace) -> None:
    """Print the whole configuration with its defaults."""
    from trainer.config_docs import example_config

    print(example_config(), end="")


def config_of(parsed: argparse.Namespace) -> "RunConfig":
    """Read the configuration asked for, the seed overridden where one was given."""
    from trainer.config import check_config, read_config

    config = read_config(parsed.config) if parsed.config else check_config({}, "defaults")
    if parsed.seed is None:
        return config
    return check_config(config.model_dump(mode="json") | {"seed": parsed.seed}, "--seed")


def publish_target(parsed: argparse.Namespace) -> ClusterMapRegistry | None:
    """Return the store that `clusters` publishes in, None where nothing is to be published."""
    if not parsed.publish:
        if parsed.saved:
            raise ConfigError(
                "clusters --from: says which map to publish, expected beside --publish; add "
                "that, or give --data to make a map"
            )
        return None
    url, bundles, namespace = store_of(parsed, "clusters --publish")
    return open_cluster_maps(url, bundles / FOLDER, namespace)


if __name__ == "__main__":
    sys.exit(main())
