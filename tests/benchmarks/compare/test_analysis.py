import numpy as np
import pandas as pd
import pytest

from benchmarks.compare.analysis import average, best_baseline, compare, fixed_list_of, pool
from benchmarks.compare.trial import resampled_means

CASES = 400


def line(method, validation, *, kind="fixed list", budget=None, num_hits=100, dataset="a"):
    """A finished line whose method recalls the item of the first `num_hits` of 400 users."""
    hits = (np.arange(CASES) < num_hits).astype(float)
    return {
        "dataset": dataset,
        "method": method,
        "kind": kind,
        "budget": budget,
        "temperature": 0.1,
        "seeds": 2,
        "seeds_planned": 2,
        "validation_recall@50": validation,
        "recall@50": float(hits.mean()),
        "recalls": {50: resampled_means(hits), 200: resampled_means(hits)},
    }


def frame(*lines):
    return pd.DataFrame(lines).astype({"budget": float})


def columns_of(*lines):
    """The comparison columns of each line, without missing values."""
    columns = compare(frame(*lines), 512)
    return [row.dropna().to_dict() for _, row in columns.iterrows()]


def test_best_baseline_is_selected_on_validation():
    lines = [line("plain", 0.3, num_hits=10), line("lucky", 0.2, num_hits=300)]
    assert best_baseline(frame(*lines), 512).method == "plain"


def test_best_baseline_excludes_esans_and_unfinished():
    lines = [line("plain", 0.1), line("ours", 0.9, kind="esans")]
    lines.append(line("part", 0.8, kind="ablation"))
    assert best_baseline(frame(*lines), 512).method == "plain"
    assert best_baseline(frame(*lines[1:]), 512) is None


def test_best_baseline_respects_the_budget():
    lines = [line("uniform", 0.3, budget=8), line("uniform", 0.5, budget=512)]
    lines.append(line("in-batch", 0.2))
    assert best_baseline(frame(*lines), 8).budget == 8
    assert best_baseline(frame(*lines), 512).budget == 512
    assert best_baseline(frame(*lines), 1).method == "in-batch"  # it encodes none


def test_fixed_list_is_empty_until_complete():
    lines = [line("in-batch", 0.2), line("uniform", 0.3, budget=8)]
    lines += [line("uniform", 0.3, budget=512), line("mix", 0.9, kind="baseline")]
    fixed = fixed_list_of(frame(*lines), 512).fillna({"budget": 0})
    assert list(zip(fixed.method, fixed.budget, strict=True)) == [("in-batch", 0), ("uniform", 512)]
    undone = line("dns", None, budget=512) | {"seeds": 0, "recalls": {}}
    assert fixed_list_of(frame(*lines, undone), 512).empty


def test_compare_uses_baselines_of_the_same_dataset():
    lines = [line("in-batch", 0.2, num_hits=100), line("ours", 0.9, kind="esans", num_hits=120)]
    lines += [
        line("in-batch", 0.2, num_hits=200, dataset="b"),
        line("ours", 0.9, kind="esans", num_hits=210, dataset="b"),
    ]
    columns = columns_of(*lines)
    assert columns[1]["best_baseline"] == "in-batch"
    assert columns[1]["recall@50_over_best_baseline"] == pytest.approx(0.2)
    assert columns[3]["recall@50_over_best_baseline"] == pytest.approx(0.05)
    assert columns[1]["recall@50_over_fixed_list_absolute"] == pytest.approx(20 / CASES)
    assert columns[1]["recall@50_over_best_baseline_low"] > 0
    assert "recall@50_over_best_baseline" not in columns[0]  # it is the best itself


def test_compare_adjusts_p_over_the_datasets():
    lines = [line("in-batch", 0.2, num_hits=200), line("ours", 0.9, kind="esans", num_hits=260)]
    lines += [
        line("in-batch", 0.2, num_hits=200, dataset="b"),
        line("ours", 0.9, kind="esans", num_hits=205, dataset="b"),
    ]
    columns = columns_of(*lines)
    name = "recall@50_over_best_baseline_p"
    strong, weak = columns[1], columns[3]
    assert strong[name] < weak[name]
    assert strong[f"{name}_holm"] == pytest.approx(2 * strong[name])
    assert weak[f"{name}_holm"] == pytest.approx(max(weak[name], 2 * strong[name]))


def test_compare_without_resamples_has_no_differences():
    bare = line("ours", None, kind="esans") | {"seeds": 1, "recall@50": 0.5, "recalls": {}}
    columns = columns_of(line("in-batch", 0.2), bare)
    assert columns[1] == {"best_baseline": "in-batch"}


def test_pool_averages_datasets_and_compares_with_references():
    lines = [line("in-batch", 0.2, num_hits=100), line("ours", 0.9, num_hits=120)]
    lines += [line("in-batch", 0.2, num_hits=200, dataset="b")]
    lines += [line("ours", 0.9, num_hits=210, dataset="b"), line("partial", 0.5)]
    lines += [line("unfinished", 0.5, dataset=name) | {"seeds": 1} for name in "ab"]
    reference, ours = pool(frame(*lines), ["in-batch", "absent"]).to_dict("records")
    assert ours["recall@50"] == pytest.approx(165 / CASES)
    assert ours["recall@50_over_in-batch"] == pytest.approx(330 / 300 - 1)
    assert 0 < ours["recall@50_over_in-batch_low"] < ours["recall@50_over_in-batch_high"]
    assert np.isnan(reference["recall@50_over_in-batch"])


def test_average_spread_needs_two_trials():
    runs = [{"recall@50": 0.2, "health_of": "sampled"}, {"recall@50": 0.4, "health_of": "sampled"}]
    averaged = average(pd.DataFrame(runs))
    assert averaged["recall@50"] == pytest.approx(0.3)
    assert averaged["recall@50_spread"] == pytest.approx(0.2 / 2**0.5)
    assert averaged["health_of"] == "sampled"
    assert average(pd.DataFrame(runs[:1])) == runs[0]
    assert np.isnan(average(pd.DataFrame([{"x": 1.0}, {"x": None}]))["x"])
    assert average(pd.DataFrame([])) == {}


def test_average_takes_costs_of_the_first_seed():
    runs = [
        {"recall@50": 0.2, "seconds_per_step": 0.03, "cpu_seconds": 60.0},
        {"recall@50": 0.4, "seconds_per_step": 0.90, "cpu_seconds": 10.0},
    ]
    figures = average(pd.DataFrame(runs))
    assert figures["recall@50"] == pytest.approx(0.3)
    assert (figures["seconds_per_step"], figures["cpu_seconds"]) == (0.03, 60.0)
    assert not {"seconds_per_step_spread", "cpu_seconds_spread"} & set(figures)
