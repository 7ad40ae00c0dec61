"""`python -m trainer compare`: run what a plan lacks, tabulate and draw what there is."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from index.errors import ConfigError
from trainer.comparison.plan import Plan, read_plan
from trainer.comparison.schedule import Schedule, find_worlds
from trainer.comparison.store import Store
from trainer.comparison.table import write_tables
from trainer.comparison.work import run_missing, until
from trainer.report.command import write_comparison_report


def compare(parsed: argparse.Namespace) -> str:
    """Run the missing cells while there is time; return what to tell.

    Tables and report are written in any case, also when a person stops the sitting.
    Raises ConfigError, DatasetError.
    """
    plan = read_plan(parsed.plan)
    worlds = find_worlds(plan, parsed.data or [])
    store = Store(parsed.out)
    store.prepare()
    schedule = Schedule(plan, worlds, store)
    for name, world in worlds.items():
        tqdm.write(f"{name}: {world.words}")
    tqdm.write(words_of(plan, len(worlds)))
    is_time_left = until(parsed.hours)
    faults: dict[str, str] = {}
    try:
        faults |= run_missing(
            list(schedule.tuning_cells()), store, parsed.workers, is_time_left
        )
        faults |= run_missing(list(schedule.seed_cells()), store, parsed.workers, is_time_left)
    finally:
        path, missing_count = write_tables(schedule, parsed.out, faults, datetime.now(UTC))
        drawn = draw(parsed.out)
    told = (
        f"{missing_count} cells missing: give the same command again" if missing_count else ""
    )
    return f"tables: {path}\nreport: {drawn}\n{told or 'all cells are done'}"


def draw(folder: Path) -> Path | str:
    """Write `report.html` beside the tables; return its path, or why there is none."""
    path = folder / "report.html"
    try:
        write_comparison_report(folder, path)
    except ConfigError as error:
        return f"none ({error})"
    return path


def words_of(plan: Plan, dataset_count: int) -> str:
    """Say how much work the plan is."""
    runs = sum(len(plan.seeds_of(name)) * len(plan.budgets_of(name)) for name in plan.methods)
    grids = sum(len(plan.grid_of(name)) - 1 for name in plan.methods if plan.grid_of(name))
    return (
        f"{len(plan.methods)} methods: {runs} runs and {grids} more to choose temperatures, "
        f"on each of {dataset_count} datasets"
    )
