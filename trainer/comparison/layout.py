"""The tables of a comparison as Markdown: one function per table, a line per method."""

from tabulate import tabulate

from trainer.comparison.rivals import BEST, FIXED_LIST, Columns
from trainer.comparison.summary import SPREAD, Line
from trainer.measures import Measures

TOLD = ("recall@50", "recall@200", "ndcg@50")
BUCKETS = ("head", "torso", "tail", "cold")
HEALTH = {
    "false_negative_share": "held-out positives, %",
    "negative_score": "mean score",
    "distinct_per_epoch": "distinct items an epoch",
    "health_of": "counted of",
    "coverage@50": "coverage@50",
    "epochs": "epochs",
}


def main_table(compared: list[tuple[Line, Columns]], fixed: list[Line]) -> str:
    """Lay out the methods at the budget compared at, and the mean of the fixed list."""
    cells = []
    for line, columns in compared:
        cells.append(
            [
                line.method,
                line.kind,
                _plain(line.budget),
                f"{len(line.seeds)} of {line.wanted_count}",
                _plain(line.temperature),
                _number(line.figure("validation_recall@50")),
                *(_spread(line, name) for name in TOLD),
                _difference(columns, f"recall@50_over_{FIXED_LIST}"),
                *_against_best(columns),
                *_costs(line),
            ]
        )
    titles = [
        *("method", "kind", "budget", "seeds", "temperature", "validation recall@50"),
        *("recall@50", "recall@200", "ndcg@50", "@50 over the fixed list's mean"),
        *("@50 over the best baseline", "p", "@200 over the best baseline"),
        *("ms a step", "CPU ms", "encoded a step"),
    ]
    table = tabulate(cells, titles, tablefmt="pipe", disable_numparse=True)
    best = next((str(one[BEST]) for _, one in compared if BEST in one), None)
    told = f"Best baseline: {best or '-'}. {fixed_list_words(fixed)}"
    return f"{table}\n\n{told}"


def budget_table(chosen: list[tuple[Line, Columns]]) -> str:
    """Lay out the methods that vary by budget; each against the best that costs no more."""
    cells = [
        [
            line.method,
            _plain(line.budget),
            *(_spread(line, name) for name in ("recall@50", "recall@200")),
            _plain(columns.get(BEST)),
            *_against_best(columns),
            *_costs(line),
        ]
        for line, columns in chosen
    ]
    titles = [
        *("method", "budget", "recall@50", "recall@200", "best baseline"),
        *("@50 over it", "p", "@200 over it", "ms a step", "CPU ms", "encoded a step"),
    ]
    return tabulate(cells, titles, tablefmt="pipe", disable_numparse=True)


def health_table(lines: list[Line]) -> str:
    """Lay out how false, how hard and how varied the negatives were."""
    cells = []
    for line in lines:
        share = line.figure("false_negative_share")
        told = {"false_negative_share": _number(None if share is None else 100 * share)}
        for name in ("negative_score", "coverage@50"):
            told[name] = _number(line.figure(name))
        for name in ("distinct_per_epoch", "epochs"):
            value = line.figure(name)
            told[name] = "-" if value is None else f"{value:,.1f}"
        told["health_of"] = str(line.figures.get("health_of") or "-")
        cells.append([line.method, _plain(line.budget), *(told[name] for name in HEALTH)])
    titles = ["method", "budget", *HEALTH.values()]
    return tabulate(cells, titles, tablefmt="pipe", disable_numparse=True)


def bucket_table(lines: list[Line]) -> str:
    """Lay out recall@50 by popularity, each bucket with its count of test items."""
    cells = [
        [line.method, *(_number(line.figure(f"{name}_recall@50")) for name in BUCKETS)]
        for line in lines
    ]
    counts = [lines[0].figure(f"{name}_targets") if lines else 0 for name in BUCKETS]
    titles = [
        "method",
        *(f"{name} ({count or 0:,.0f})" for name, count in zip(BUCKETS, counts, strict=True)),
    ]
    return tabulate(cells, titles, tablefmt="pipe", disable_numparse=True)


def yardstick_words(measured: dict[str, Measures]) -> str:
    """Say what popularity and EASE reach; and where EASE was left out."""
    told = [
        f"{name}: " + ", ".join(f"{one} {found[one]:.4f}" for one in TOLD)
        for name, found in measured.items()
    ]
    if "EASE" not in measured:
        told.append("EASE: skipped, too many items")
    return "For comparison, " + "; ".join(told) + "."


def fixed_list_words(fixed: list[Line]) -> str:
    """Say what the mean of the fixed list is; nothing of a part of the list."""
    if not fixed:
        return "The fixed list is not all there yet: no mean."
    means = []
    for name in TOLD:
        values = [value for line in fixed if (value := line.figure(name)) is not None]
        means.append(f"{name} {sum(values) / len(values):.4f}" if values else f"{name} -")
    return f"Mean of the fixed list ({len(fixed)} methods): {', '.join(means)}."


def _against_best(columns: Columns) -> list[str]:
    return [
        _difference(columns, f"recall@50_over_{BEST}"),
        _number(columns.get(f"recall@50_over_{BEST}_p_holm")),
        _difference(columns, f"recall@200_over_{BEST}"),
    ]


def _costs(line: Line) -> list[str]:
    seconds, encoded = line.figure("seconds_per_step"), line.figure("encoded_per_step")
    cpu = line.figure("cpu_seconds_per_step")
    return [
        "-" if seconds is None else f"{1_000 * seconds:.1f}",
        "-" if cpu is None else f"{1_000 * cpu:.1f}",
        "-" if encoded is None else f"{encoded:,.0f}",
    ]


def _difference(columns: Columns, name: str) -> str:
    values = [columns.get(key) for key in (name, f"{name}_low", f"{name}_high")]
    if not all(isinstance(value, float) for value in values):
        return "-"
    told, low, high = (f"{100 * float(value or 0):+.1f}" for value in values)
    return f"{told} % [{low}, {high}]"


def _spread(line: Line, name: str) -> str:
    spread = line.figure(name + SPREAD)
    return _number(line.figure(name)) + ("" if spread is None else f" ± {spread:.4f}")


def _number(value: float | str | None) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def _plain(value: object) -> str:
    return "-" if value is None else str(value)
