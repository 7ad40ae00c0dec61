"""What a comparison found, for a program (Parquet) and for a person (Markdown)."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.comparison.layout import (
    bucket_table,
    budget_table,
    health_table,
    main_table,
    yardstick_words,
)
from trainer.comparison.rivals import Columns, compare_all, fixed_list_of
from trainer.comparison.schedule import Schedule
from trainer.comparison.summary import Line, collect
from trainer.comparison.work import Faults
from trainer.comparison.yardsticks import yardsticks_of
from trainer.measures import LEAST_CASES

NOTES = f"""\
Test part, exact full ranking over all items, seen items removed, on the towers' own vectors
(no bundle). Mean over the seeds ± their standard deviation. The temperature is chosen by
validation recall@50 of seed 0 at the budget compared at; the best baseline by the mean
validation recall@50, among those that encode no more items a step. Differences are relative,
in brackets the 95 % interval of a paired bootstrap over users of seed-averaged recalls
(1,000 resamples); p by Holm over the datasets. Budget: items encoded a step beyond positives
and histories, candidates included; "-": the method has none to set. Milliseconds are those of
the first finished seed: others may come from other machines. No figure comes from fewer than
{LEAST_CASES} cases."""


def write_tables(
    schedule: Schedule, folder: Path, faults: Faults, now: datetime
) -> tuple[Path, int]:
    """Write table.md, table.parquet and rows.parquet; return the first, and cells missing."""
    lines = collect(schedule)
    columns = compare_all(lines, schedule.plan.budget)
    rows = [flat_row(line) | one for line, one in zip(lines, columns, strict=True)]
    write_parquet(rows, folder / "table.parquet")
    write_parquet(all_rows(schedule), folder / "rows.parquet")
    missing = missing_of(lines)
    parts = [f"# Comparison, {now:%Y-%m-%d}", NOTES]
    for dataset in schedule.worlds:
        chosen = [
            (line, one)
            for line, one in zip(lines, columns, strict=True)
            if line.dataset == dataset
        ]
        parts += [f"## {dataset}", schedule.worlds[dataset].words]
        told = yardstick_words(yardsticks_of(schedule.worlds[dataset], folder))
        parts += [told, *sections(chosen, schedule.plan.budget)]
    parts += ["## Missing", missing_text(missing, faults)]
    path = folder / "table.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path, sum(line.wanted_count - len(line.seeds) for line in missing)


def sections(chosen: list[tuple[Line, Columns]], budget: int) -> list[str]:
    """Lay out one dataset: methods at one budget, budgets, negatives, popularity."""
    fixed = fixed_list_of([line for line, _ in chosen], budget)
    done = [(line, columns) for line, columns in chosen if line.seeds]
    compared = [(line, columns) for line, columns in done if line.budget in (None, budget)]
    varied = {line.method for line, _ in chosen if line.budget not in (None, budget)}
    by_budget = [(line, columns) for line, columns in done if line.method in varied]
    lines = [line for line, _ in compared]
    parts = [f"### Methods, at {budget} encoded items a step", main_table(compared, fixed)]
    if by_budget:
        parts += ["### Budgets", budget_table(by_budget)]
    parts += ["### Negatives", health_table([line for line, _ in done])]
    return [*parts, "### recall@50 by popularity of the item", bucket_table(lines)]


def flat_row(line: Line) -> dict[str, Any]:
    """Spell a line as columns of plain values."""
    return {
        "dataset": line.dataset,
        "method": line.method,
        "kind": line.kind,
        "budget": line.budget,
        "temperature": line.temperature,
        "seeds": len(line.seeds),
        "seeds_wanted": line.wanted_count,
        **line.figures,
    }


def all_rows(schedule: Schedule) -> list[dict[str, Any]]:
    """Spell every finished cell as columns, those that temperatures were chosen by too."""
    cells = [*schedule.tuning_cells(), *schedule.seed_cells()]
    rows = []
    for digest, cell in {cell.digest: cell for cell in cells}.items():
        figures = schedule.store.figures(cell)
        if figures is not None:
            told = {
                "dataset": cell.dataset,
                "method": cell.method,
                "budget": cell.budget,
                "seed": cell.config.seed,
                "temperature": cell.config.training.temperature,
            }
            rows.append(told | figures | {"digest": digest})
    return rows


def write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows whose columns are those of all of them together; null where one has none."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [_floated(row.get(name)) for row in rows] for name in names}
    pq.write_table(pa.table(columns), path)


def _floated(value: Any) -> Any:  # noqa: ANN401  # a cell of any column
    """Make every number a float: a mean is one, even where all runs gave the same count."""
    return float(value) if isinstance(value, int) else value


def missing_of(lines: list[Line]) -> list[Line]:
    """Return the lines that lack seeds."""
    return [line for line in lines if len(line.seeds) < line.wanted_count]


def missing_text(missing: list[Line], faults: Faults) -> str:
    """Say what is not there yet, and what failed in this sitting."""
    told = []
    for line in missing:
        budget = "" if line.budget is None else f" {line.budget}"
        why = "" if line.temperature is not None else ", its temperature is not chosen yet"
        told.append(
            f"- {line.dataset}: {line.method}{budget}: "
            f"{len(line.seeds)} of {line.wanted_count} seeds{why}"
        )
    told += [f"- failed: {cell}: {fault}" for cell, fault in faults.items()]
    return "\n".join(told) or "Nothing."
