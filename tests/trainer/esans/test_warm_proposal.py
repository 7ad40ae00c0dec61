"""Warm proposal: its probabilities against brute force, and its samples against both."""

import numpy as np
import pytest
from scipy.stats import chisquare

from index.cluster_map import ClusterMap
from tests.support.line_map import all_rows, assert_samples_match, rows
from trainer.config import validate_config
from trainer.esans.warm_proposal import WarmProposal

# three clusters on a line; cluster 2 is one cell, item 9 is alone in cluster 3, the last is cold
CODES1 = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4], np.int32)
CODES2 = np.array([0, 0, 1, 2, 0, 0, 1, 3, 3, 0, 0], np.int32)
COUNTS = np.array([5, 1, 0, 3, 2, 0, 9, 1, 4, 7, 0])
CENTROIDS = np.array([0, 1, 3, 4, 9], np.float32)[:, None]
CLUSTERS = ClusterMap(CODES1, CODES2, CENTROIDS, np.arange(11, dtype=np.uint64), 1.0)


def build(counts=COUNTS, clusters=CLUSTERS, **settings):
    config = validate_config({"training": {"sampler": {"name": "esans", **settings}}}, "a test")
    return WarmProposal(clusters, counts / counts.sum(), config.training.sampler)


def brute_force(anchor, exponent, cluster_exponent, has_own):
    """q(j | i) by its definition, for every item j."""
    weights = np.where(COUNTS > 0, COUNTS.astype(float) ** exponent, 0)
    totals = np.bincount(CODES1, weights, 5)
    distances = np.abs(CENTROIDS[:, 0] - CENTROIDS[CODES1[anchor], 0])
    between = np.abs(CENTROIDS - CENTROIDS.T)[~np.eye(5, dtype=bool)]
    logits = np.where(totals > 0, totals**cluster_exponent, 0) * np.exp(
        -distances / np.median(between)
    )
    if not has_own:
        logits[CODES1[anchor]] = 0
    return (logits / logits.sum())[CODES1] * weights / np.maximum(totals, 1e-9)[CODES1]


@pytest.mark.parametrize("has_own", [True, False])
@pytest.mark.parametrize(("exponent", "cluster_exponent"), [(0.75, 1), (0, 1), (1, 0), (0.5, 0.5)])
def test_easy_probability_is_that_of_the_definition(exponent, cluster_exponent, has_own):
    proposal = build(exponent=exponent, cluster_exponent=cluster_exponent, own_cluster=has_own)
    anchors = rows(0, 6, 9)
    expected = [brute_force(anchor, exponent, cluster_exponent, has_own) for anchor in anchors]
    everything = all_rows(CLUSTERS)
    np.testing.assert_allclose(
        proposal.easy_probability(anchors, everything), expected, rtol=1e-4, atol=1e-12
    )
    mean = proposal.mean_easy_probability(anchors, everything)
    np.testing.assert_allclose(mean, np.mean(expected, axis=0), rtol=1e-4, atol=1e-12)
    assert mean.sum() == pytest.approx(1)


def test_easy_samples_match_probability_and_are_warm():
    proposal, rng = build(), np.random.default_rng(1)
    probability = proposal.easy_probability(rows(4), all_rows(CLUSTERS))[0]
    assert probability[COUNTS == 0].tolist() == [0, 0, 0]
    assert_samples_match(proposal.sample_easy(np.full(500, 4, np.int32), 20, rng), probability)
    pairs = proposal.sample_easy_pairs(np.full(5_000, 4, np.int32), rng)
    assert (CODES1[pairs[:, 0]] == CODES1[pairs[:, 1]]).all()
    assert_samples_match(pairs[:, 0], probability)
    assert_samples_match(pairs[:, 1], probability)


def test_proposal_of_a_single_cluster_is_popularity():
    clusters = ClusterMap(0 * CODES1, CODES2, CENTROIDS[:1], np.arange(11, dtype=np.uint64), 1.0)
    proposal = build(clusters=clusters, exponent=1)
    probability = proposal.easy_probability(rows(4), all_rows(clusters))[0]
    np.testing.assert_allclose(probability, COUNTS / COUNTS.sum(), rtol=1e-6)
    sampled = proposal.sample_easy(np.full(500, 4, np.int32), 20, np.random.default_rng(1))
    assert_samples_match(sampled, probability)


@pytest.mark.parametrize("positive", [0, 3, 4, 6, 7, 9])
def test_hard_samples_match_probability(positive):
    proposal, rng = build(), np.random.default_rng(positive)
    probability = proposal.hard_probability(rows(positive), all_rows(CLUSTERS))[0]
    sampled = proposal.sample_hard(np.full(500, positive, np.int32), 20, rng)
    assert_samples_match(sampled, probability)
    assert probability.sum() == pytest.approx(1)


def test_hard_probability_follows_counts_within_cluster():
    probability = build(exponent=1).hard_probability(rows(3), all_rows(CLUSTERS))[0]
    assert probability[:4].tolist() == pytest.approx([5 / 6, 1 / 6, 0, 0])


def test_warm_proposal_without_distances_is_popularity():
    """With gamma 1 and a large T, clusters do not matter."""
    far = ClusterMap(CODES1, CODES2, CENTROIDS, CLUSTERS.id_hashes, 1e6)
    probability = build(clusters=far).easy_probability(rows(0), all_rows(far))[0]
    expected = np.where(COUNTS > 0, COUNTS**0.75, 0)
    np.testing.assert_allclose(probability, expected / expected.sum(), rtol=1e-4)


def test_warm_proposal_own_cluster_is_used_if_it_is_the_only():
    counts = np.where(CODES1 == 0, COUNTS, 0)
    proposal = build(counts, own_cluster=False)
    sampled = proposal.sample_easy(np.zeros(100, np.int32), 4, np.random.default_rng(0))
    assert set(sampled.ravel().tolist()) == {0, 1, 3}


def test_warm_proposal_masks_no_cell_above_the_limit():
    proposal = build(max_cell_share=8 / 32)  # the own cell of item 6 has 9 of 32 targets
    is_masked = proposal.is_same_cell(rows(0, 6), all_rows(CLUSTERS))
    assert np.flatnonzero(is_masked[0]).tolist() == [0, 1]
    assert not is_masked[1].any()


def test_warm_proposal_of_many_items_matches_samples():
    """Bisection over a long table of skewed counts neither skips nor adds an item."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 40, 4_000).astype(np.int32)
    clusters = ClusterMap(
        codes, codes % 7, rng.normal(size=(40, 3)).astype(np.float32), np.arange(4_000, dtype="u8")
    )
    counts = (rng.pareto(1.2, 4_000) * 3).astype(int)
    proposal = build(counts, clusters)
    anchors = rng.choice(4_000, 64, p=counts / counts.sum()).astype(np.int32)
    sampled = proposal.sample_easy(np.repeat(anchors, 2_000), 1, rng).ravel()
    expected = len(sampled) * proposal.mean_easy_probability(anchors, all_rows(clusters))
    observed = np.bincount(sampled, minlength=4_000)
    assert observed[counts == 0].sum() == 0
    is_frequent = expected > 5
    scale = observed[is_frequent].sum() / expected[is_frequent].sum()
    assert scale == pytest.approx(1, abs=0.01)
    assert chisquare(observed[is_frequent], scale * expected[is_frequent]).pvalue > 0.001
