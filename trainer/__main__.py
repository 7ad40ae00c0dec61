"""`python -m trainer`: train on a dataset folder and publish a bundle."""

import argparse
import sys

from index.bundle.registry import BundleRegistry
from index.errors import EsansError
from trainer.options import (
    add_clusters,
    add_report,
    add_run,
    config_of,
    open_store,
    url_of,
)

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
    trained = commands.add_parser("run", help="train, measure, publish")
    add_run(trained)
    trained.set_defaults(run=run)
    mapped = commands.add_parser("clusters", help="make, describe and publish a cluster map")
    add_clusters(mapped)
    mapped.set_defaults(run=clusters)
    drawn = commands.add_parser("report", help="draw a published run, as one HTML file")
    add_report(drawn)
    drawn.set_defaults(run=report)
    explained = commands.add_parser("config", help="print every setting with its meaning")
    explained.set_defaults(run=explain)
    return parser


def clusters(parsed: argparse.Namespace) -> None:
    """Make a cluster map, describe it, save and publish it where asked."""
    from trainer.esans.command import make_or_open  # torch takes seconds to import

    print(make_or_open(parsed))


def run(parsed: argparse.Namespace) -> None:
    """Train and publish, unless there is nothing to do."""
    if parsed.skip == "if-any" and BundleRegistry(parsed.bundles).pointer():
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
    from trainer.report.run_report import write_run_report

    write_run_report(parsed.bundles, parsed.version, parsed.out)
    print(f"wrote {parsed.out}; open it in a browser, it needs no network")


def explain(_: argparse.Namespace) -> None:
    """Print the whole configuration with its defaults."""
    from trainer.config_docs import example_config

    print(example_config(), end="")


if __name__ == "__main__":
    sys.exit(main())
