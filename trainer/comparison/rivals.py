"""Each line against what it must beat: the mean of the fixed list, and the best baseline."""

from collections import defaultdict

from trainer.comparison.cell import RECALL_COUNTS, Recalls
from trainer.comparison.significance import Difference, difference_of, holm
from trainer.comparison.summary import Line, mean_of

FIXED_LIST, BEST = "fixed_list", "best_baseline"
BASELINE_KINDS = ("fixed list", "baseline")

Columns = dict[str, float | str | None]


def compare_all(lines: list[Line], budget: int) -> list[Columns]:
    """Compare every line with its rivals; the columns of each line, in their order.

    budget  at which methods are compared

    For recall at 50 and 200: the relative difference, its interval, the absolute one, p, and
    p by Holm over the datasets that the method was measured on. A rival that is not there, or
    resamples that are not at hand, leave a column out.
    """
    columns = []
    for line in lines:
        beside = [other for other in lines if other.dataset == line.dataset]
        columns.append(_columns_of(line, beside, budget))
    _adjust(lines, columns)
    return columns


def fixed_list_of(lines: list[Line], budget: int) -> list[Line]:
    """Return one dataset's fixed list at the budget compared at; empty unless all is there."""
    wanted = [
        line for line in lines if line.kind == "fixed list" and line.budget in (None, budget)
    ]
    return wanted if all(line.seeds for line in wanted) else []


def best_baseline(lines: list[Line], limit: int) -> Line | None:
    """Return one dataset's baseline of the highest mean validation recall@50 in the limit.

    limit  items encoded a step, at most; a baseline without a budget encodes none
    """
    fitting = [
        line
        for line in lines
        if line.kind in BASELINE_KINDS and line.seeds and (line.budget or 0) <= limit
    ]
    return max(fitting, key=_validation, default=None)


def _validation(line: Line) -> float:
    return line.figure("validation_recall@50") or 0.0


def _columns_of(line: Line, lines: list[Line], budget: int) -> Columns:
    """Compare a line with those of its dataset."""
    columns: Columns = {}
    best = best_baseline(lines, line.budget or budget)
    if best is not None:
        columns[BEST] = _named(best)
    rivals: dict[str, Recalls] = {}
    if best is not None and best is not line:
        rivals[BEST] = best.recalls
    if line.budget in (None, budget):
        rivals[FIXED_LIST] = mean_of([one.recalls for one in fixed_list_of(lines, budget)])
    for rival, recalls in rivals.items():
        for count in RECALL_COUNTS:
            if count in line.recalls and count in recalls and recalls[count][0]:
                difference = difference_of(line.recalls[count], recalls[count])
                columns |= _spelled(f"recall@{count}_over_{rival}", difference)
    return columns


def _named(line: Line) -> str:
    return line.method if line.budget is None else f"{line.method} {line.budget}"


def _spelled(name: str, difference: Difference) -> Columns:
    return {
        name: difference.relative,
        f"{name}_low": difference.relative_interval[0],
        f"{name}_high": difference.relative_interval[1],
        f"{name}_absolute": difference.absolute,
        f"{name}_absolute_low": difference.interval[0],
        f"{name}_absolute_high": difference.interval[1],
        f"{name}_p": difference.p_value,
    }


def _adjust(lines: list[Line], columns: list[Columns]) -> None:
    """Add p by Holm: a method at a budget against one rival is a family over the datasets."""
    families: dict[tuple[str, int | None, str], list[Columns]] = defaultdict(list)
    for line, found in zip(lines, columns, strict=True):
        for name in [name for name in found if name.endswith("_p")]:
            families[line.method, line.budget, name].append(found)
    for (_, _, name), members in families.items():
        p_values = [float(found[name] or 0) for found in members]
        for found, adjusted in zip(members, holm(p_values), strict=True):
            found[f"{name}_holm"] = adjusted
