"""Negatives by row and by id, sampled from the map of `tests.support.line_map`."""

import numpy as np
import pytest

from index.cluster_map import NegativeCounts, sample_negative_rows, sample_negatives
from index.ids import build_id_table
from tests.support.line_map import all_rows, assert_samples_match, build_line_map, rows

IDS = [f"item-{row}" for row in range(10)]


def sample(positives, counts, seed=1, clusters=None):
    return sample_negatives(
        positives,
        build_id_table(IDS),
        clusters or build_line_map(),
        counts,
        np.random.default_rng(seed),
    )


def test_sample_negative_rows_matches_probabilities():
    clusters = build_line_map()
    sampled = sample_negative_rows(
        np.full(4_000, 0, dtype=np.int32), clusters, NegativeCounts(4, 3), np.random.default_rng(2)
    )
    assert sampled.rows.shape == sampled.log_counts.shape == (4_000, 7)
    assert_samples_match(
        sampled.rows[:, :4], clusters.easy_probability(rows(0), all_rows(clusters))[0]
    )
    assert_samples_match(
        sampled.rows[:, 4:], clusters.hard_probability(rows(0), all_rows(clusters))[0]
    )


def test_log_counts_sum_easy_and_hard():
    clusters, counts = build_line_map(), NegativeCounts(3, 2)
    positives = rows(0, 2, 7)  # of item 7 the cell is the whole cluster: hard ones turn easy
    sampled = sample_negative_rows(positives, clusters, counts, np.random.default_rng(3))
    easy = clusters.easy_probability(positives, all_rows(clusters))
    hard = clusters.hard_probability(positives, all_rows(clusters))
    counts_by_row = np.take_along_axis(3 * easy + 2 * hard, sampled.rows, axis=1)
    np.testing.assert_allclose(sampled.log_counts, np.log(counts_by_row), rtol=1e-6)
    np.testing.assert_allclose(np.exp(sampled.log_counts[2]), 5 * easy[2, sampled.rows[2]], 1e-6)


@pytest.mark.parametrize("counts", [NegativeCounts(4, 0), NegativeCounts(0, 4)])
def test_log_counts_of_single_kind(counts):
    clusters = build_line_map()
    sampled = sample_negative_rows(rows(0), clusters, counts, np.random.default_rng(4))
    probability = clusters.easy_probability if counts.easy else clusters.hard_probability
    np.testing.assert_allclose(
        sampled.log_counts, np.log(4 * probability(rows(0), sampled.rows)), rtol=1e-6
    )


def test_expected_counts_sum_to_requested_counts():
    clusters, counts = build_line_map(), NegativeCounts(40_000, 60_000)
    sampled = sample_negative_rows(rows(0), clusters, counts, np.random.default_rng(5))
    expected = dict(zip(sampled.rows[0].tolist(), sampled.log_counts[0].tolist(), strict=True))
    assert sum(np.exp(list(expected.values()))) == pytest.approx(100_000, rel=1e-4)


def test_sample_negatives_keeps_order_and_reports_unknown_ids():
    negatives = sample(["item-7", "lost", "item-0", "item-7"], NegativeCounts(2, 1))
    assert negatives.positives == ["item-7", "item-0", "item-7"]
    assert negatives.unknown == ["lost"]
    assert negatives.ids == [IDS[row] for row in negatives.sampled.rows.reshape(-1)]
    assert len(negatives.ids) == 9


def test_sample_negatives_without_known_ids_is_empty():
    assert sample(["lost"], NegativeCounts(2, 1)).sampled.rows.shape == (0, 3)
    assert sample([], NegativeCounts(2, 1)).ids == []
    assert sample(["item-1"], NegativeCounts(0, 0)).sampled.rows.shape == (1, 0)


def test_sample_negatives_is_reproducible_by_seed():
    first, repeated, other = (sample(IDS, NegativeCounts(5, 5), seed).ids for seed in (1, 1, 2))
    assert first == repeated != other


def test_log_counts_with_single_cell_are_uniform():
    clusters = build_line_map(codes1=[1] * 4, codes2=[0] * 4)
    sampled = sample_negative_rows(
        rows(0, 3), clusters, NegativeCounts(3, 5), np.random.default_rng(6)
    )
    np.testing.assert_allclose(sampled.log_counts, np.log(8 / 4), rtol=1e-6)
