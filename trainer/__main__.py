"""`python -m trainer`: train on a dataset folder and publish a bundle."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from index.errors import ConfigError, EsansError
from index.shelf import Shelf
from trainer.comparison.usage import describe as describe_comparison
from trainer.report.usage import describe as describe_report

if TYPE_CHECKING:
    from trainer.config import RunConfig

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
        print(
            f"{place}: the run was stopped by the system ({error}); {REMEDY}", file=sys.stderr
        )
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Learn two towers from interactions, and publish them as a bundle.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_run(commands.add_parser("run", help="train, measure, publish"))
    add_clusters(commands.add_parser("clusters", help="make and describe a cluster map alone"))
    comparison = commands.add_parser("compare", help="samplers over seeds and datasets")
    describe_comparison(comparison)
    comparison.set_defaults(run=compare)
    drawn = commands.add_parser("report", help="draw a run or a comparison, as one HTML file")
    describe_report(drawn)
    drawn.set_defaults(run=report)
    explained = commands.add_parser("config", help="print every setting with its meaning")
    explained.set_defaults(run=explain)
    return parser


ABOUT_RUN = """\
Train on a dataset folder, measure what was trained, publish it and make it current.

DIR holds interactions.parquet or .csv (user_id, item_id, and timestamp or seq_pos where known)
and items.parquet (item_id, any attributes, features as list columns) with features_NAME.npy
beside it, one row per item. See the README for the whole list.

A killed run goes on where it was: give the same command again.

example: python -m trainer run --data shop/ --bundles bundles/"""


def add_dataset_and_config(parser: argparse.ArgumentParser) -> None:
    """Describe what `config_of` reads, and the dataset beside it."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the dataset")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML; see `python -m trainer config`"
    )
    parser.add_argument("--seed", type=int, metavar="SEED", help="overrides the file's seed")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Describe `run`."""
    parser.description = ABOUT_RUN
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(run=run)
    add_dataset_and_config(parser)
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


ABOUT_CLUSTERS = """\
Make the cluster map of a dataset folder, as a run does, and describe it: sizes, perplexity,
agreement with a category column, and the items of three clusters, to judge it by.

example: python -m trainer clusters --data shop/ --category department"""


def add_clusters(parser: argparse.ArgumentParser) -> None:
    """Describe `clusters`."""
    parser.description = ABOUT_CLUSTERS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(run=clusters)
    add_dataset_and_config(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to save the map")
    parser.add_argument("--category", metavar="COLUMN", help="of the items, to compare with")


def config_of(parsed: argparse.Namespace) -> "RunConfig":
    """Read the configuration asked for, the seed overridden where one was given."""
    from trainer.config import check_config, read_config

    config = read_config(parsed.config) if parsed.config else check_config({}, "defaults")
    if parsed.seed is None:
        return config
    return check_config(config.model_dump(mode="json") | {"seed": parsed.seed}, "--seed")


def clusters(parsed: argparse.Namespace) -> None:
    """Make a cluster map, describe it, save it where asked."""
    from trainer.esans.command import make_and_describe  # torch takes seconds to import

    print(make_and_describe(config_of(parsed), parsed.data, parsed.out, parsed.category))


def compare(parsed: argparse.Namespace) -> None:
    """Run what a plan lacks, write the tables."""
    from trainer.comparison.command import compare as run_comparison

    print(run_comparison(parsed))


def run(parsed: argparse.Namespace) -> None:
    """Train and publish, unless there is nothing to do."""
    if parsed.skip == "if-any" and Shelf(parsed.bundles).pointer():
        print(f"{parsed.bundles}: holds a current bundle, nothing to do")
        return
    from trainer.dataset import load_dataset  # torch takes seconds to import
    from trainer.pipeline import is_current, run as run_pipeline

    config = config_of(parsed)
    if parsed.skip == "if-same":
        data = load_dataset(parsed.data, config.data.split, config.seed)
        if is_current(config, data, parsed.bundles):
            print(f"{parsed.bundles}: the current bundle is of this data and configuration")
            return
    published = run_pipeline(config, parsed.data, parsed.bundles, force=parsed.force)
    print(
        f"\npublished {published.version} and made it current\n"
        f"serve it: python -m service --bundles {parsed.bundles}"
    )


def report(parsed: argparse.Namespace) -> None:
    """Write the report of a run or of a comparison."""
    from trainer.report.command import write_comparison_report, write_run_report

    if parsed.comparison is None:
        write_run_report(parsed.bundles, parsed.version, parsed.out)
    elif parsed.version is None:
        write_comparison_report(parsed.comparison, parsed.out)
    else:
        raise ConfigError("--version: names a bundle, expected with --bundles; leave it out")
    print(f"wrote {parsed.out}; open it in a browser, it needs no network")


def explain(_: argparse.Namespace) -> None:
    """Print the whole configuration with its defaults."""
    from trainer.explain import example

    print(example(), end="")


if __name__ == "__main__":
    sys.exit(main())
