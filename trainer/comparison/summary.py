"""From finished cells to lines: one per dataset, method and budget, averaged over its seeds."""

from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

from trainer.comparison.cell import RECALL_COUNTS, Cell, Figures, Recalls
from trainer.comparison.schedule import Schedule
from trainer.comparison.store import Store

SPREAD = "_spread"
COSTS = ("seconds", "cpu_seconds", "seconds_per_step", "cpu_seconds_per_step")


@dataclass(frozen=True)
class Line:
    """What is known of a method at a budget on a dataset.

    budget       None where the method has none to set
    temperature  None where it is not chosen yet
    seeds        of the finished runs; `wanted_count` is how many there shall be
    figures      mean over the seeds; NAME_spread their standard deviation, from two seeds on;
                 COSTS are those of the first finished seed
    recalls      averaged over the seeds; empty where those of a run are not at hand
    """

    dataset: str
    method: str
    kind: str
    budget: int | None
    temperature: float | None
    seeds: tuple[int, ...]
    wanted_count: int
    figures: Figures
    recalls: Recalls

    def figure(self, name: str) -> float | None:
        """Return a figure that is a number; None where there is none."""
        value = self.figures.get(name)
        return None if isinstance(value, str) else value


def collect(schedule: Schedule) -> list[Line]:
    """Make a line of every dataset, method and budget of the plan, finished or not."""
    plan = schedule.plan
    return [
        _line(schedule, dataset, name, budget)
        for dataset in schedule.worlds
        for name in plan.methods
        for budget in plan.budgets_of(name)
    ]


def _line(schedule: Schedule, dataset: str, name: str, budget: int | None) -> Line:
    store = schedule.store
    done: list[tuple[Cell, Figures]] = []
    for cell in schedule.cells_of(dataset, name, budget):
        figures = store.figures(cell)
        if figures is not None:
            done.append((cell, figures))
    return Line(
        dataset=dataset,
        method=name,
        kind=schedule.plan.methods[name].kind,
        budget=budget,
        temperature=schedule.temperature_of(dataset, name),
        seeds=tuple(cell.config.seed for cell, _ in done),
        wanted_count=len(schedule.plan.seeds_of(name)),
        figures=figures_of([figures for _, figures in done]),
        recalls=_recalls(store, [cell for cell, _ in done]),
    )


def figures_of(runs: list[Figures]) -> Figures:
    """Average the runs, and take what they cost from the first.

    A comparison may be finished on other machines: a mean over these says nothing.
    """
    costs = {name: runs[0][name] for name in COSTS if runs and name in runs[0]}
    kept = [{name: run[name] for name in run if name not in COSTS} for run in runs]
    return average(kept) | costs


def average(runs: list[Figures]) -> Figures:
    """Average the numbers over the runs, with their spread; keep a word that all agree on."""
    averaged: Figures = {}
    for name in runs[0] if runs else ():
        values = [run.get(name) for run in runs]
        numbers = [value for value in values if isinstance(value, int | float)]
        if len(numbers) == len(runs):
            averaged[name] = mean(numbers)
            if len(runs) > 1:
                averaged[name + SPREAD] = stdev(numbers)
        else:
            averaged[name] = values[0] if len(set(values)) == 1 else None
    return averaged


def _recalls(store: Store, cells: list[Cell]) -> Recalls:
    runs = [found for cell in cells if (found := store.recalls(cell)) is not None]
    return mean_of(runs) if len(runs) == len(cells) else {}


def mean_of(runs: list[Recalls]) -> Recalls:
    """Average recalls over runs or methods, draw by draw; empty if there are none."""
    if not runs or not all(runs):
        return {}
    return {
        count: np.mean([one[count] for one in runs], axis=0).astype(np.float64)
        for count in RECALL_COUNTS
    }
