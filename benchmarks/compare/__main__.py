"""`python -m benchmarks.compare`: run what a study lacks, tabulate and draw what there is."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from benchmarks.compare.report import write_report
from benchmarks.compare.runner import deadline, run_missing
from benchmarks.compare.schedule import Schedule
from benchmarks.compare.store import TrialStore
from benchmarks.compare.study import Study, read_study
from benchmarks.compare.subset import find_datasets
from benchmarks.compare.tables import write_tables
from index.errors import ConfigError, EsansError

ABOUT_RUN = """\
Compare samplers fairly: methods x budgets x seeds x datasets, from one plan.

Every training is a row in OUT/rows as soon as it is done: stop when you like, give the same
command again, and it goes on with what is missing. After each sitting OUT holds table.md,
report.html to look at, and table.parquet and rows.parquet for a program. OUT/resamples holds
each training's recall over a thousand draws of the same users: the intervals come from it.

A plan:

    seeds = 5                            # 0, 1, 2, 3, 4
    temperatures = [0.05, 0.07, 0.1]     # chosen per method on validation, by seed 0
    budget = 512                         # items encoded a step, at which methods are compared
    budgets = [8, 32, 128, 512]          # for the methods that vary by it

    [run.training]                       # for all: tables data, towers, clusters, training
    epochs = 30

    [datasets.instruments]
    folder = "amazon_instruments"        # sought under each --data
    limit_interactions = 200000          # optional: whole users, drawn by chance

    [methods.in-batch]
    kind = "fixed list"                  # or "baseline", "esans", "ablation"
    training.sampler = { name = "in-batch" }

    [methods.uniform]
    kind = "fixed list"
    training.sampler = { name = "uniform" }
    budget_shares = { count = 1.0 }      # setting of the sampler -> its part of the budget
    varies_by_budget = true              # else it is run at `budget` alone

Further, a method may have `clusters` (changes to that table), `seeds`, `temperatures`, and
`temperature_of = "METHOD"`, which takes over a choice instead of making one.

example: python -m benchmarks.compare run --plan plan.toml --data data/ --out results/"""
ABOUT_REPORT = """\
Draw the tables that `run` wrote, as one HTML file that needs no network.

example: python -m benchmarks.compare report results/ --out results.html"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status (0 done, 1 refused with a reason)."""
    parsed = build_parser().parse_args(arguments)
    try:
        print(parsed.command(parsed))
    except EsansError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Describe the commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shape = argparse.RawDescriptionHelpFormatter
    run = commands.add_parser("run", description=ABOUT_RUN, formatter_class=shape)
    run.set_defaults(command=run_study)
    run.add_argument("--plan", type=Path, required=True, metavar="FILE", help="TOML")
    told = "folders that hold the plan's datasets; default: the current one"
    run.add_argument("--data", type=Path, nargs="+", default=[], metavar="DIR", help=told)
    told = "rows, resamples and tables"
    run.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=told)
    told = "processes (1)"
    run.add_argument("--workers", type=at_least_one, default=1, metavar="COUNT", help=told)
    told = "start no training after so many; 0 only writes the tables"
    run.add_argument("--hours", type=float, metavar="HOURS", help=told)
    report = commands.add_parser("report", description=ABOUT_REPORT, formatter_class=shape)
    report.set_defaults(command=draw)
    report.add_argument("folder", type=Path, metavar="FOLDER", help="what `run` made")
    told = "what to write; default: %(default)s"
    default = Path("report.html")
    report.add_argument("--out", type=Path, default=default, metavar="FILE", help=told)
    return parser


def at_least_one(text: str) -> int:
    """Parse a count of processes."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected at least 1")
    return count


def run_study(parsed: argparse.Namespace) -> str:
    """Run the missing trials while there is time; return a summary.

    Tables and report are written in any case, also when a person stops the sitting.
    Raises ConfigError, DatasetError.
    """
    study = read_study(parsed.plan)
    datasets = find_datasets(study, parsed.data)
    store = TrialStore(parsed.out)
    store.prepare()
    schedule = Schedule(study, datasets, store)
    for name, dataset in datasets.items():
        tqdm.write(f"{name}: {dataset.summary}")
    tqdm.write(size_of(study, len(datasets)))
    is_time_left = deadline(parsed.hours)
    failures: dict[str, str] = {}
    try:
        for trials in (schedule.tuning_trials, schedule.seed_trials):  # the second needs the first
            failures |= run_missing(list(trials()), store, parsed.workers, is_time_left)
    finally:
        path, missing_count = write_tables(schedule, failures, datetime.now(UTC))
        try:
            drawn = str(write_report(parsed.out, parsed.out / "report.html"))
        except ConfigError as error:
            drawn = f"none ({error})"
    outcome = "all trials are done"
    if missing_count:
        outcome = f"{missing_count} trials missing: give the same command again"
    return f"tables: {path}\nreport: {drawn}\n{outcome}"


def size_of(study: Study, dataset_count: int) -> str:
    """Describe how much work a study is."""
    runs = sum(len(study.seeds_of(name)) * len(study.budgets_of(name)) for name in study.methods)
    grids = sum(max(0, len(study.grid_of(name)) - 1) for name in study.methods)
    return (
        f"{len(study.methods)} methods: {runs} trials and {grids} more to choose temperatures, "
        f"on each of {dataset_count} datasets"
    )


def draw(parsed: argparse.Namespace) -> str:
    """Write the report of a finished sitting."""
    return f"wrote {write_report(parsed.folder, parsed.out)}; open it in a browser"


if __name__ == "__main__":
    sys.exit(main())
