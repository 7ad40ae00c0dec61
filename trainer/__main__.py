"""Command line of the trainer: `python -m trainer`.

Commands import torch themselves, because the import takes seconds.
"""

import argparse
import json
import os
import shlex
import signal
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn

from index.bundle.registry import BundleRegistry
from index.cluster_map_stores import FOLDER, open_cluster_maps
from index.errors import EsansError
from index.fsio import parse_path
from index.storage.address import get_namespace, load_redis_url
from index.store_commands import add_redis_options
from trainer.clusters_command import ABOUT_CLUSTERS, add_clusters
from trainer.command_options import add_config, check_writable, load_run_config

ABOUT_RUN = """\
Train on a dataset folder, evaluate the model, publish it as a bundle and make it current.

DIR contains interactions.parquet or .csv (user_id, item_id, optionally timestamp or seq_pos)
and items.parquet (item_id, any attributes, features as list columns), with optional
features_NAME.npy files of one row per item. docs/data-format.md describes the format.

To resume a killed run, repeat the same command.

A run whose sampler uses a cluster map also publishes the map to the store. With --follow it
uses the store's current map and swaps to a new one between two steps; the manifest records
every map and its first step. Store errors are logged and do not stop training.

For a daily training, --warm-from current continues from the published model, and --refit lets
the published one learn from the newest interactions too, which the evaluation holds out.

torchrun trains on several devices or machines: each rank computes its share of every batch,
and the first one prints, watches the store, evaluates and publishes.

examples:
  python -m trainer run --data shop/ --bundles bundles/
  python -m trainer run --data shop/ --bundles bundles/ --warm-from current --refit
  torchrun --nproc-per-node 4 -m trainer run --data shop/ --bundles bundles/
  ESANS_REDIS_URL=redis://cache:6379/0 python -m trainer run --data shop/ --bundles bundles/ \\
      --config esans.toml --follow"""
ABOUT_REPORT = """\
Render a published run as a self-contained HTML file.

example: python -m trainer report --bundles bundles/"""
REMEDY = (
    "the current bundle is unchanged; check free space and permissions of the disk, then "
    "repeat the command to resume from the last checkpoint"
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, 1 after a reported error, or 128 + the signal that ended it."""
    parsed = build_parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        saved = "; ".join(getattr(stop, "__notes__", [])) or "nothing was saved"
        print(f"\nstopped by {signal.Signals(number).name}: {saved}", file=sys.stderr)
        return 128 + number
    except EsansError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        path = getattr(parsed, "bundles", None) or getattr(parsed, "out", None) or "the output"
        print(f"{path}: the command failed with an I/O error ({error}); {REMEDY}", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train a two-tower model on interactions and publish it as a bundle.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run(add("run", help="train, evaluate and publish", description=ABOUT_RUN))
    summary = "build, describe and publish a cluster map"
    add_clusters(add("clusters", help=summary, description=ABOUT_CLUSTERS))
    summary = "render a published run as an HTML file"
    add_report(add("report", help=summary, description=ABOUT_REPORT))
    add("config", help="print every setting with its description").set_defaults(run=print_config)
    return parser


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.set_defaults(run=run)
    parser.add_argument("--data", type=parse_path, required=True, metavar="DIR", help="the dataset")
    add_config(parser)
    parser.add_argument(
        "--bundles",
        type=parse_path,
        required=True,
        metavar="DIR",
        help="where bundles are published",
    )
    condition = parser.add_mutually_exclusive_group()
    condition.add_argument(
        "--force",
        action="store_true",
        help="make the bundle current even if the popularity baseline is better",
    )
    condition.add_argument(
        "--only-if-better",
        action="store_true",
        help="make the bundle current only if its test recall@50 is higher than that of the "
        "current bundle; else it is published, and the exit status is still 0",
    )
    parser.add_argument(
        "--skip",
        choices=("never", "if-any", "if-same"),
        default="never",
        help="do nothing if there is a current bundle (if-any), or one from the same data and "
        "configuration (if-same); default: never",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="sample negatives with the store's current cluster map, swapped between two steps",
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        help="after the evaluation, train again on all interactions for the best number of epochs "
        "and publish that model, with the metrics of the evaluated one",
    )
    parser.add_argument(
        "--warm-from",
        metavar="VERSION",
        help="start from the weights and optimizer state of this bundle, or of `current`, joined "
        "by item id; needs the same towers and features",
    )
    what = f"the cluster maps; without Redis they are in {FOLDER}/ of the bundle folder"
    add_redis_options(parser, parser, what)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    parser.set_defaults(run=report)
    summary = "the bundle folder of the run"
    parser.add_argument("--bundles", type=parse_path, required=True, metavar="DIR", help=summary)
    parser.add_argument("--version", metavar="VERSION", help="bundle version; default: current")
    parser.add_argument(
        "--out",
        type=parse_path,
        metavar="FILE",
        help="output file, not inside a bundle; default: VERSION.report.html beside the bundle",
    )


def run(parsed: argparse.Namespace) -> None:
    """Train and publish, alone or as a rank of torchrun, unless `--skip` applies."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        if not should_skip(parsed):
            train_and_publish(parsed)
        return
    from trainer.distributed import join_ranks, on_main_rank

    with join_ranks():
        if not on_main_rank(partial(should_skip, parsed)):
            train_and_publish(parsed)


def should_skip(parsed: argparse.Namespace) -> bool:
    """Return whether `--skip if-any` applies, and say so."""
    if parsed.skip != "if-any" or not BundleRegistry(parsed.bundles).pointer():
        return False
    print(f"{parsed.bundles}: there is a current bundle already, nothing to do")
    return True


def train_and_publish(parsed: argparse.Namespace) -> None:
    """Train and publish, unless the current bundle has the same data and configuration."""
    config = load_run_config(parsed)
    check_writable("--bundles", parsed.bundles)
    from trainer.pipeline import RunOptions, run as run_pipeline

    url = parsed.redis or load_redis_url(os.environ)
    namespace = parsed.namespace or get_namespace(os.environ)
    store = open_cluster_maps(url, parsed.bundles / FOLDER, namespace)
    options = RunOptions(
        folder=parsed.data,
        bundles=parsed.bundles,
        store=store,
        force=parsed.force,
        follow=parsed.follow,
        skip_same=parsed.skip == "if-same",
        only_if_better=parsed.only_if_better,
        refit=parsed.refit,
        warm_from=parsed.warm_from,
    )
    result = run_pipeline(config, options)
    if result is None:
        print(f"{parsed.bundles}: the current bundle has the same data and configuration")
    elif result.is_current:
        print(f"\npublished {result.version} and made it current")
        print_next_steps(parsed.bundles, result.example)


def print_next_steps(bundles: Path, example: dict[str, object]) -> None:
    """Print commands that serve a bundle and send a request to it."""
    body = shlex.quote(json.dumps(example))
    is_installed = all(find_spec(name) for name in ("service", "uvicorn"))
    print(
        f"serve it: {'' if is_installed else '(where the service is installed) '}"
        f"{shlex.join([sys.executable, '-m', 'service', '--bundles', str(bundles)])}\n"
        "query it: curl -s http://127.0.0.1:8000/retrieve -H 'content-type: application/json' "
        f"-d {body}"
    )


def report(parsed: argparse.Namespace) -> None:
    """Write the HTML report of a run."""
    from trainer.report.run_report import write_run_report

    out = write_run_report(parsed.bundles, parsed.version, parsed.out)
    print(f"wrote {out}; open it in a browser, no network needed")


def print_config(_: argparse.Namespace) -> None:
    """Print the whole configuration with its defaults."""
    from trainer.config_docs import example_config

    print(example_config(), end="")


def stop(number: int, _: FrameType | None) -> NoReturn:
    """Signal handler: end the command as Ctrl-C does."""
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    sys.exit(main())
