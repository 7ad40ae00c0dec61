import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from tests.support.sampler_contexts import context_for, context_with_all_seen, loss_of
from trainer.samplers.literature import MixedSampler

SHARE = [0.6, 0.3, 0.1, 0.0, 0.0]
HISTORIES = [[0, 3], [1], [2]]


def test_mixed_log_q_is_that_of_the_mixture():
    sampled = MixedSampler(20)(context_for(HISTORIES, [0, 1, 2], [0, 1, 2], SHARE))
    all_counts = [3 * share + 20 / 5 for share in SHARE]  # 3 in-batch, 20 uniform
    assert sampled.log_q.exp().tolist() == pytest.approx([all_counts[row] for row in sampled.rows])
    assert sampled.positive_log_q.exp().tolist() == pytest.approx(all_counts[:3])


def test_mixed_sample_frequency_matches_log_q():
    rng, counts, steps = np.random.default_rng(0), np.zeros(5), 800
    for number in range(steps):
        batch = rng.choice(5, size=30, p=SHARE).tolist()
        counts += np.bincount(
            MixedSampler(10)(context_for(HISTORIES, [0] * 30, batch, SHARE, step=number)).rows,
            minlength=5,
        )
    expected = [steps * (30 * share + 10 / 5) for share in SHARE]
    assert chisquare(counts, expected).pvalue > 0.001


def test_mixed_non_target_item_has_finite_log_q():
    sampled = MixedSampler(200)(context_for(HISTORIES, [0], [0], SHARE))
    assert sampled.log_q[sampled.rows == 4].tolist() == pytest.approx(
        [math.log(200 / 5)] * int((sampled.rows == 4).sum())
    )
    assert torch.isfinite(sampled.log_q).all()


def test_mixed_encodes_uniform_part_only():
    context = context_for(HISTORIES, [0, 1], [0, 1], SHARE)
    sampled = MixedSampler(7)(context)
    assert sampled.rows[:2].tolist() == [0, 1]
    assert torch.equal(sampled.vectors, context.encode(sampled.rows))
    assert sampled.num_encoded == 7


def test_mixed_masks_seen_items_in_both_parts():
    sampled = MixedSampler(60)(context_for(HISTORIES, [0, 1, 2], [0, 1, 2], SHARE))
    for user, history in enumerate(HISTORIES):
        assert sampled.is_masked[user].tolist() == [row in history for row in sampled.rows]
    assert sampled.is_masked[0, 0]
    assert sampled.is_masked[0, 3:].any()


def test_mixed_all_seen_row_has_finite_loss():
    context = context_with_all_seen(SHARE)
    assert torch.isfinite(loss_of(context, MixedSampler(9)(context)))
