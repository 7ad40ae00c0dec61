"""Comparison of a new bundle with the current one."""

from dataclasses import replace

import pytest

from index.bundle.manifest import read_manifest
from tests.support.published_bundles import day
from tests.support.synthetic_bundle import publish_handmade
from trainer.comparison import Comparison, compare_bundles, has_same_test_cases, render_comparison

COMPARISON = Comparison(
    current="20260101T000000Z-abcd",
    current_metrics={"recall@20": 0.25, "recall@50": 0.5},
    new_metrics={"ndcg@50": 0.125, "recall@50": 0.625},
    is_same_data=True,
    missing_count=1_234,
    added_count=5,
)


def test_compare_bundles_counts_missing_and_new_items(tmp_path):
    current = publish_handmade(tmp_path, ids=[f"item-{row}" for row in range(40)])
    new = publish_handmade(tmp_path, day(1), ids=[f"item-{row}" for row in range(3, 50)])
    comparison = compare_bundles(tmp_path / current, tmp_path / new)
    assert (comparison.missing_count, comparison.added_count) == (3, 10)
    assert comparison.is_same_data
    assert comparison.is_better  # the current bundle has no metrics


@pytest.mark.parametrize(
    ("seed", "cases", "expected"),
    [(0, (60, 60), True), (3, (60, 60), True), (0, (20, 60), False), (3, (20, 60), False)],
)
def test_same_test_cases_need_an_equal_sample(tmp_path, seed, cases, expected):
    manifest = read_manifest(tmp_path / publish_handmade(tmp_path))
    before, after = (
        manifest.model_copy(
            update={
                "metrics": {"test": {"cases": counts[0], "total_cases": counts[1]}},
                "run": {"config": {"seed": run_seed}},
            }
        )
        for counts, run_seed in (((60, 60), 0), (cases, seed))
    )
    assert has_same_test_cases(before, after) == expected
    assert has_same_test_cases(after, after)
    sampled = after.model_copy(update={"run": {"config": {"seed": seed + 1}}})
    assert has_same_test_cases(after, sampled) == (cases == (60, 60))


@pytest.mark.parametrize(("recall", "is_better"), [(0.5, False), (0.4, False), (0.51, True)])
def test_comparison_is_better_needs_a_higher_recall(recall, is_better):
    assert replace(COMPARISON, new_metrics={"recall@50": recall}).is_better == is_better


def test_render_comparison_shows_both_bundles():
    lines = render_comparison(COMPARISON).splitlines()
    assert "20260101T000000Z-abcd (same test users)" in lines[0]
    assert lines[-3].split() == ["new", "0.6250", "0.1250"]
    assert lines[-4].split() == ["current", "0.5000", "-"]
    assert lines[-1].startswith("1,234 items of the current bundle are missing")
    other = render_comparison(replace(COMPARISON, is_same_data=False))
    assert "(other test users)" in other
