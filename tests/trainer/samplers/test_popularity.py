import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from tests.support.sampler_contexts import context_for, context_with_all_seen, loss_of
from trainer.samplers.simple import PopularitySampler

SHARE = [0.0, 0.5, 0.25, 0.0, 0.2, 0.05, 0.0]  # items 0, 3 and 6 are never targets
HISTORIES = [[1, 4], [2]]


def step(number=0):
    return context_for(HISTORIES, [0, 1], [1, 2], SHARE, step=number)


@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0])
def test_popularity_sample_frequency_matches_log_q(exponent):
    sampler, counts, steps = PopularitySampler(40, exponent), np.zeros(7), 500
    expected = np.zeros(7)
    for number in range(steps):
        sampled = sampler(step(number))
        counts += np.bincount(sampled.rows, minlength=7)
        expected[sampled.rows] = sampled.log_q.exp()
    assert chisquare(counts[expected > 0], expected[expected > 0] * steps).pvalue > 0.001


@pytest.mark.parametrize("exponent", [0.0, 0.75, 2.0])
def test_popularity_never_samples_non_targets(exponent):
    rows = PopularitySampler(10_000, exponent)(step()).rows
    assert set(rows.tolist()) == {1, 2, 4, 5}


def test_popularity_log_q_is_power_of_target_share():
    sampled = PopularitySampler(8, 0.75)(step())
    powers = [share**0.75 for share in SHARE]
    all_counts = [8 * power / sum(powers) for power in powers]
    assert sampled.log_q.exp().tolist() == pytest.approx([all_counts[row] for row in sampled.rows])
    assert sampled.positive_log_q.tolist() == pytest.approx(
        [math.log(all_counts[1]), math.log(all_counts[2])]
    )


def test_popularity_log_q_is_higher_for_popular_items():
    sampled = PopularitySampler(200, 1.0)(step())
    of_row = dict(zip(sampled.rows.tolist(), sampled.log_q.tolist(), strict=True))
    assert of_row[1] > of_row[2] > of_row[5]  # log q is subtracted


def test_popularity_masks_seen_items_without_resampling():
    sampled = PopularitySampler(500, 0.75)(step())
    for user, history in enumerate(HISTORIES):
        assert sampled.is_masked[user].tolist() == [row in history for row in sampled.rows]
        assert sampled.is_masked[user].any()


def test_popularity_new_target_share_rebuilds_table():
    sampler = PopularitySampler(50, 1.0)
    sampler(step())
    rows = sampler(context_for([[0]], [0], [0], [0.5, 0.5, 0.0])).rows
    assert set(rows.tolist()) == {0, 1}


def test_popularity_all_seen_row_has_finite_loss():
    context = context_with_all_seen([0.5, 0.5])
    sampled = PopularitySampler(4, 0.75)(context)
    assert torch.isfinite(loss_of(context, sampled))
    assert sampled.num_encoded == 4
