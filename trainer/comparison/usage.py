"""What a person may say to `python -m trainer compare`. It imports nothing that is slow."""

import argparse
from pathlib import Path

ABOUT = """\
Compare ways of drawing negatives fairly: methods x budgets x seeds x datasets, from one plan.

Every run is a row in OUT/rows as soon as it is done: stop when you like, give the same command
again, and it goes on with what is missing. After each sitting OUT holds table.md, report.html
to look at, and table.parquet and rows.parquet for a program. OUT/resamples holds each run's
recall over a thousand draws of the same users: the intervals come from it.

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

example: python -m trainer compare --plan plan.toml --data data/ --out results/"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = ABOUT
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--plan", type=Path, required=True, metavar="FILE", help="TOML")
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="folders that hold the plan's datasets; default: the current one",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="rows, resamples and tables"
    )
    parser.add_argument(
        "--workers", type=at_least_one, default=1, metavar="COUNT", help="processes (1)"
    )
    parser.add_argument(
        "--hours",
        type=float,
        metavar="HOURS",
        help="start no run after so many; 0 only writes the tables",
    )


def at_least_one(text: str) -> int:
    """Read a count of processes."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected at least 1")
    return count
