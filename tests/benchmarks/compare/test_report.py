import re

import pytest

from benchmarks.compare.__main__ import main
from benchmarks.compare.report import (
    bars_figure,
    budgets_figure,
    by_budget,
    compared_budget,
    read_lines,
    render_report,
    side_by_side,
)
from tests.support.study_tables import frame, line, write_table

LINES = [
    line("uniform", 0.3, budget=256.0),
    line("uniform", 0.35, negative_score=0.1, false_negative_share=0.002),
    line("in_batch", 0.2, budget=None, seconds_per_step=0.05),
    line("esans <b>", 0.4, seeds=1.0, health_of="encoded"),
    line("dns", None or 0.0, seeds=0.0),
]


def test_side_by_side_sorts_by_recall_at_common_budget():
    lines = frame(LINES[:4])
    assert compared_budget(lines) == 512
    compared = side_by_side(lines, 512)
    assert list(compared.method) == ["in_batch", "uniform", "esans <b>"]


def test_compared_budget_is_that_of_the_fixed_list():
    lines = [line("uniform", 0.3, budget=8.0, **{"recall@50_over_fixed_list": 0.01}), *LINES]
    assert compared_budget(frame(lines)) == 8


def test_bars_show_the_numbers_of_the_table():
    ours, fixed = bars_figure(side_by_side(frame(LINES[:4]), 512), {"recall@50": "recall"}).data
    assert (list(ours.x), ours.error_x.visible) == ([0.4], False)
    assert list(fixed.x) == [0.2, 0.35]
    assert list(fixed.error_x.array) == [0.01, 0.01]


def test_budgets_figure_has_a_line_per_method():
    groups = by_budget(frame(LINES[:4]))
    (trace,) = budgets_figure(groups, {"recall@200": "recall"}).data
    assert (trace.name, list(trace.x)) == ("uniform", [256, 512])
    assert list(trace.y) == pytest.approx([0.5, 0.55])


def test_report_has_a_section_per_dataset(tmp_path):
    lines = [*LINES, line("uniform", 0.6, dataset="other <i>")]
    text = render_report(read_lines(write_table(tmp_path, lines)))
    body = text[text.index("<body>") :]
    assert re.findall(r"<h2[^>]*>([^<]*)</h2>", body) == ["shop", "other &lt;i&gt;"]
    assert re.findall(r'<div id="figure-([a-z0-9-]+)"', body) == [
        *("recall-1", "budgets-1", "negatives-1", "cost-1", "recall-2")
    ]
    assert "a single budget" in body
    assert "has no seconds per step" in body
    assert "for esans &lt;b&gt; the encoded items" in body
    assert "<b>" not in body.replace("esans &lt;b&gt;", "")
    assert "dns" not in body


def test_report_without_a_study_table_is_rejected(tmp_path, capsys):
    out = str(tmp_path / "report.html")
    assert main(["report", str(tmp_path), "--out", out]) == 1
    assert "cannot be read as a table" in capsys.readouterr().err
    write_table(tmp_path, [{"dataset": "shop"}])
    assert main(["report", str(tmp_path), "--out", out]) == 1
    assert "has no column method, kind, budget, seeds" in capsys.readouterr().err
    write_table(tmp_path, [line("uniform", 0.1, seeds=0.0)])
    assert main(["report", str(tmp_path), "--out", out]) == 1
    assert "no finished trial" in capsys.readouterr().err
