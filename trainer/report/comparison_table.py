"""`table.parquet` of a comparison, read: a line per dataset, method and budget."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from index.errors import ConfigError

TABLE = "table.parquet"
NEEDED = ("dataset", "method", "kind", "budget", "seeds")
COMPARED = "recall@50_over_fixed_list"  # told only at the budget compared at
SPREAD = "_spread"  # NAME_spread is the standard deviation over the seeds

Line = Mapping[str, Any]


def read_lines(folder: Path) -> list[Line]:
    """Read the lines that have a finished run, in the table's order.

    Raises ConfigError if there is no table, or none of a comparison.
    """
    path = folder / TABLE
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(
            f"{path}: cannot be read as a table ({str(error).splitlines()[0]}); make one with "
            f"`python -m trainer compare`"
        ) from error
    absent = [name for name in NEEDED if name not in table.column_names]
    if absent:
        raise ConfigError(
            f"{path}: has no column {', '.join(absent)}; expected what "
            "`python -m trainer compare` writes; run it again"
        )
    lines: list[Line] = [line for line in table.to_pylist() if line["seeds"]]
    if not lines:
        raise ConfigError(
            f"{path}: holds no finished run; let `python -m trainer compare` go on"
        )
    return lines


def number(line: Line, name: str) -> float | None:
    """Return a figure; None where the line has none."""
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else None


def spread(line: Line, name: str) -> float | None:
    """Return a figure's standard deviation over the seeds; None where there is one seed."""
    return number(line, name + SPREAD)


def has(lines: Sequence[Line], name: str) -> bool:
    """Tell whether any line knows the figure."""
    return any(number(line, name) is not None for line in lines)


def compared_budget(lines: Sequence[Line]) -> float | None:
    """Return the budget that methods are compared at; None where none has one to set.

    It is told by who is compared with the fixed list; where nobody is yet, it is taken to be
    the one at which most methods stand, the larger of equals.
    """
    compared = [line for line in lines if number(line, COMPARED) is not None]
    counts = Counter(line["budget"] for line in compared if line["budget"] is not None)
    counts = counts or Counter(line["budget"] for line in lines if line["budget"] is not None)
    return max(counts, key=lambda budget: (counts[budget], budget), default=None)


def side_by_side(lines: Sequence[Line], budget: float | None) -> list[Line]:
    """Return the lines at one budget, or without any; lowest recall@50 first."""
    chosen = [line for line in lines if line["budget"] in (None, budget)]
    return sorted(chosen, key=lambda line: number(line, "recall@50") or 0.0)


def by_budget(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Return the methods that were run at several budgets, each from least to most."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        if line["budget"] is not None:
            groups.setdefault(line["method"], []).append(line)
    return {
        method: sorted(group, key=lambda line: float(line["budget"]))
        for method, group in groups.items()
        if len(group) > 1
    }
