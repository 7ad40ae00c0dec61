"""The report of a comparison: methods side by side, dataset by dataset."""

from collections.abc import Sequence
from pathlib import Path

from trainer.report.comparison_figures import bars_figure, budgets_figure
from trainer.report.comparison_table import (
    TABLE,
    Line,
    by_budget,
    compared_budget,
    has,
    number,
    read_lines,
    side_by_side,
    spread,
)
from trainer.report.page import (
    Section,
    drawing,
    heading,
    missing,
    page,
    paragraph,
    spelled,
    table,
)

RECALLS = {"recall@50": "recall@50", "recall@200": "recall@200"}
NEGATIVES = {
    "negative_score": "mean score of negatives",
    "false_negative_share": "false negatives, share",
}
COST = {
    "seconds_per_step": "seconds per step",
    "cpu_seconds_per_step": "CPU seconds per step",
}
RECALLS_CAPTION = (
    "Share of a user's held-out items found in 50 and in 200 candidates; the best method at 50 "
    "stands on top, colours tell the kind of method."
)
NEGATIVES_CAPTION = (
    "Left, how hard the negatives were (mean score that training gave them, -1 to 1); right, "
    "the share of them that were held-out positives of the same user. Order as above."
)
COST_CAPTION = (
    "Left, wall-clock seconds of one training step, which other work on the machine lengthens; "
    "right, processor seconds, which it hardly does. Both of each method's first seed: "
    "comparable where these ran on one machine. Order as above."
)
BUDGETS_CAPTION = (
    "Recall over the items that a step encodes beyond positives and histories, candidates "
    "included; the axis is logarithmic."
)
LEAD = (
    "Every method was trained with the same towers, optimiser and stopping rule, and measured "
    "on the test part by an exact full ranking, seen items removed. A bar or point is the mean "
    "over the seeds, its error bar their standard deviation (none where there is one seed "
    f"alone). Every number is read from {TABLE}. Hover over a figure for values."
)


def report_of_comparison(folder: Path) -> str:
    """Return the page of a comparison's folder.

    Raises ConfigError if it holds no comparison.
    """
    lines = read_lines(folder)
    datasets = list(dict.fromkeys(str(line["dataset"]) for line in lines))
    sections = [
        section_of(name, place, [line for line in lines if line["dataset"] == name])
        for place, name in enumerate(datasets, 1)
    ]
    return page("Methods of drawing negatives, side by side", LEAD, sections)


def section_of(dataset: str, place: int, lines: Sequence[Line]) -> Section:
    """Draw one dataset; its place on the page keeps the figures' names apart."""
    budget = compared_budget(lines)
    compared = side_by_side(lines, budget)
    at = "" if budget is None else f", at {budget:,.0f} items encoded a step"
    parts = [
        heading(f"Recall{at}"),
        *bars(compared, RECALLS, f"recall-{place}", RECALLS_CAPTION),
        methods_table(compared),
        heading("Budgets"),
        *budgets(lines, place),
        heading(f"The negatives themselves{at}"),
        *bars(compared, NEGATIVES, f"negatives-{place}", NEGATIVES_CAPTION),
        *counted_of_ends(compared),
        heading(f"Cost{at}"),
        *bars(compared, COST, f"cost-{place}", COST_CAPTION),
    ]
    return Section(dataset, parts)


def budgets(lines: Sequence[Line], place: int) -> list[str]:
    """Draw recall over the budget, where there is more than one."""
    groups = by_budget(lines)
    if not groups:
        return [missing("Every method was run at one budget alone, so that there is no axis.")]
    return [drawing(budgets_figure(groups, RECALLS), f"budgets-{place}", BUDGETS_CAPTION)]


def bars(lines: Sequence[Line], titles: dict[str, str], name: str, caption: str) -> list[str]:
    """Draw what is known of the figures asked for; say so where one is not."""
    known = {one: title for one, title in titles.items() if has(lines, one)}
    parts = [drawing(bars_figure(lines, known), name, caption)] if known else []
    absent = [title for one, title in titles.items() if one not in known]
    return parts + [missing(f"{TABLE} does not tell the {title}.") for title in absent]


def counted_of_ends(lines: Sequence[Line]) -> list[str]:
    """Say whose negatives are no items, so that what they were made of was counted."""
    methods = [str(line["method"]) for line in lines if line.get("health_of") == "encoded"]
    if not methods:
        return []
    return [
        paragraph(
            f"A virtual negative is no item: for {', '.join(methods)} the items that they are "
            "made of were counted."
        )
    ]


def methods_table(lines: Sequence[Line]) -> str:
    """Tabulate the methods that are drawn, the best first."""
    rows = [
        [
            line["method"],
            line["kind"],
            None if line["budget"] is None else int(line["budget"]),
            int(line["seeds"]),
            number(line, "temperature"),
            *(_with_spread(line, name) for name in RECALLS),
        ]
        for line in reversed(lines)
    ]
    head = ("method", "kind", "budget", "seeds", "temperature", *RECALLS)
    return table(head, rows)


def _with_spread(line: Line, name: str) -> str:
    deviation = spread(line, name)
    told = spelled(number(line, name))
    return f"{told} ± {deviation:.4f}" if deviation is not None else told
