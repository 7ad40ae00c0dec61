"""`python -m benchmarks.compare`: run the missing trials of a study, render tables and report."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from benchmarks.compare.report import write_report
from benchmarks.compare.runner import build_deadline, run_missing
from benchmarks.compare.schedule import Schedule
from benchmarks.compare.store import TrialStore
from benchmarks.compare.study import read_study
from benchmarks.compare.subset import find_datasets
from benchmarks.compare.tables import write_tables
from index.errors import ConfigError, EsansError

ABOUT_RUN = """\
Compare samplers: methods x budgets x seeds x datasets, from one study file.

Each finished trial is a row in OUT/rows. Stop at any time: the same command resumes with the
missing trials. After each session OUT holds table.md, report.html, table.parquet and
rows.parquet. OUT/resamples holds the recall of each trial over a thousand bootstrap resamples
of the same users; the confidence intervals are computed from it.

A study file:

    seeds = 5                            # 0, 1, 2, 3, 4
    temperatures = [0.05, 0.07, 0.1]     # chosen per method on validation, with seed 0
    budget = 512                         # items encoded per step, at which methods are compared
    budgets = [8, 32, 128, 512]          # for methods with varies_by_budget
    references = ["in-batch"]            # optional: compared with all, on average over the datasets

    [run.training]                       # shared: tables data, towers, clusters, training
    epochs = 30

    [datasets.instruments]
    folder = "amazon_instruments"        # searched under each --data
    limit_interactions = 200000          # optional: whole users, sampled

    [methods.in-batch]
    kind = "fixed list"                  # or "baseline", "esans", "ablation"
    training.sampler = { name = "in-batch" }

    [methods.uniform]
    kind = "fixed list"
    training.sampler = { name = "uniform" }
    budget_shares = { count = 1.0 }      # sampler setting -> share of the budget
    varies_by_budget = true              # otherwise it runs at `budget` only

A method may also have `clusters` (changes to that table), `datasets` (only these), `seeds`,
`temperatures`, and `temperature_of = "METHOD"`, which reuses the temperature chosen for another.

example: python -m benchmarks.compare run --study study.toml --data data/ --out results/"""
ABOUT_REPORT = """\
Render the report of a study as one HTML file that needs no network. It needs table.parquet only.

example: python -m benchmarks.compare report results/ --out results.html"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status (0 success, 1 error)."""
    parsed = build_parser().parse_args(arguments)
    try:
        print(parsed.command(parsed))
    except EsansError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    run = commands.add_parser("run", description=ABOUT_RUN, formatter_class=raw)
    run.set_defaults(command=run_study)
    run.add_argument("--study", type=Path, required=True, metavar="FILE", help="study file (TOML)")
    text = "folders that contain the datasets; default: the current one"
    run.add_argument("--data", type=Path, nargs="+", default=[], metavar="DIR", help=text)
    text = "rows, resamples and tables"
    run.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=text)
    text = "worker processes (1)"
    run.add_argument("--workers", type=positive_int, default=1, metavar="COUNT", help=text)
    text = "start no trial after this many hours; 0 only writes the tables"
    run.add_argument("--hours", type=float, metavar="HOURS", help=text)
    report = commands.add_parser("report", description=ABOUT_REPORT, formatter_class=raw)
    report.set_defaults(command=render_report_file)
    report.add_argument("folder", type=Path, metavar="FOLDER", help="output folder of `run`")
    text = "output file; default: %(default)s"
    default = Path("report.html")
    report.add_argument("--out", type=Path, default=default, metavar="FILE", help=text)
    return parser


def positive_int(text: str) -> int:
    """Parse a positive integer."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected at least 1")
    return count


def run_study(parsed: argparse.Namespace) -> str:
    """Run the missing trials until the deadline; return a summary.

    Tables and report are always written, also after a keyboard interrupt.

    Raises:
        ConfigError, DatasetError: The study or a dataset is invalid.
    """
    study = read_study(parsed.study)
    datasets = find_datasets(study, parsed.data)
    store = TrialStore(parsed.out)
    store.prepare()
    schedule = Schedule(study, datasets, store)
    for name, dataset in datasets.items():
        tqdm.write(f"{name}: {dataset.summary}")
    tqdm.write(describe_size(schedule))
    is_time_left = build_deadline(parsed.hours)
    failures: dict[str, str] = {}
    try:
        for trials in (schedule.tuning_trials, schedule.seed_trials):  # tuning comes first
            failures |= run_missing(list(trials()), store, parsed.workers, is_time_left)
    finally:
        path, num_missing = write_tables(schedule, failures, datetime.now(UTC))
        try:
            report = str(write_report(parsed.out, parsed.out / "report.html"))
        except ConfigError as error:
            report = f"none ({error})"
    outcome = "all trials are finished"
    if num_missing:
        outcome = f"{num_missing} trials missing: run the same command again"
    return f"tables: {path}\nreport: {report}\n{outcome}"


def describe_size(schedule: Schedule) -> str:
    """Describe the number of trials of a study."""
    study = schedule.study
    trials = sum(len(study.seeds_of(name)) for _, name, _ in schedule.lines())
    tuning = sum(1 for _ in schedule.tuning_trials())
    return (
        f"{len(study.methods)} methods on {len(schedule.reported)} datasets: {trials} trials, and "
        f"{tuning} to tune temperatures"
    )


def render_report_file(parsed: argparse.Namespace) -> str:
    """Write the HTML report of a study."""
    return f"wrote {write_report(parsed.folder, parsed.out)}; open it in a browser"


if __name__ == "__main__":
    sys.exit(main())
