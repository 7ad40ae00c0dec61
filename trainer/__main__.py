"""`python -m trainer`: train on a dataset folder and publish a bundle."""

import argparse
import sys
from pathlib import Path

from index.errors import EsansError
from index.shelf import Shelf
from trainer.esans.usage import describe as describe_clusters
from trainer.options import add_config, add_store, config_of, open_store, url_of
from trainer.report.usage import describe as describe_report

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
    mapped = commands.add_parser("clusters", help="make, describe and publish a cluster map")
    describe_clusters(mapped)
    mapped.set_defaults(run=clusters)
    drawn = commands.add_parser("report", help="draw a published run, as one HTML file")
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

A run whose sampler draws from a cluster map publishes it to the store, too. With --follow it
draws from the map that is current there, and swaps to a new one between two steps; the manifest
tells every map and its first step. Trouble with the store is told, and stops nothing.

examples:
  python -m trainer run --data shop/ --bundles bundles/
  ESANS_REDIS_URL=redis://cache:6379/0 python -m trainer run --data shop/ --bundles bundles/ \\
      --config esans.toml --follow"""


def add_run(parser: argparse.ArgumentParser) -> None:
    """Describe `run`."""
    parser.description = ABOUT_RUN
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
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
    add_store(parser)


def clusters(parsed: argparse.Namespace) -> None:
    """Make a cluster map, describe it, save and publish it where asked."""
    from trainer.esans.command import make_or_open  # torch takes seconds to import

    print(make_or_open(parsed))


def run(parsed: argparse.Namespace) -> None:
    """Train and publish, unless there is nothing to do."""
    if parsed.skip == "if-any" and Shelf(parsed.bundles).pointer():
        print(f"{parsed.bundles}: holds a current bundle, nothing to do")
        return
    from trainer.data.dataset import load_dataset  # torch takes seconds to import
    from trainer.pipeline import RunOptions, is_current, run as run_pipeline

    config = config_of(parsed)
    store = open_store(url_of(parsed), parsed.bundles, parsed)
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


def report(parsed: argparse.Namespace) -> None:
    """Write the report of a run."""
    from trainer.report.command import write_run_report

    write_run_report(parsed.bundles, parsed.version, parsed.out)
    print(f"wrote {parsed.out}; open it in a browser, it needs no network")


def explain(_: argparse.Namespace) -> None:
    """Print the whole configuration with its defaults."""
    from trainer.config_docs import example

    print(example(), end="")


if __name__ == "__main__":
    sys.exit(main())
