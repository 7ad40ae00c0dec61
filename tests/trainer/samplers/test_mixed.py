import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from tests.support.sampler_contexts import context_for, knows_all, loss_of
from trainer.samplers.literature import MixedSampler

SHARE = [0.6, 0.3, 0.1, 0.0, 0.0]
TAKEN = [[0, 3], [1], [2]]


def test_log_q_is_of_the_mixture_with_each_part_at_its_own_count():
    drawn = MixedSampler(20)(context_for(TAKEN, [0, 1, 2], [0, 1, 2], SHARE))
    law = [3 * share + 20 / 5 for share in SHARE]  # 3 of the batch, 20 uniform: not the same
    assert drawn.log_q.exp().tolist() == pytest.approx([law[row] for row in drawn.rows])
    assert drawn.positive_log_q.exp().tolist() == pytest.approx(law[:3])


def test_items_come_as_often_as_log_q_says():
    rng, counts, steps = np.random.default_rng(0), np.zeros(5), 800
    for number in range(steps):
        batch = rng.choice(5, size=30, p=SHARE).tolist()
        counts += np.bincount(
            MixedSampler(10)(context_for(TAKEN, [0] * 30, batch, SHARE, step=number)).rows,
            minlength=5,
        )
    expected = [steps * (30 * share + 10 / 5) for share in SHARE]
    assert chisquare(counts, expected).pvalue > 0.001


def test_an_item_that_never_is_a_target_still_has_a_finite_log_q():
    drawn = MixedSampler(200)(context_for(TAKEN, [0], [0], SHARE))
    assert drawn.log_q[drawn.rows == 4].tolist() == pytest.approx(
        [math.log(200 / 5)] * int((drawn.rows == 4).sum())
    )
    assert torch.isfinite(drawn.log_q).all()


def test_the_batch_comes_first_and_only_the_rest_is_encoded():
    context = context_for(TAKEN, [0, 1], [0, 1], SHARE)
    drawn = MixedSampler(7)(context)
    assert drawn.rows[:2].tolist() == [0, 1]
    assert torch.equal(drawn.vectors, context.encode(drawn.rows))
    assert drawn.num_encoded == 7


def test_known_positives_are_masked_in_both_parts():
    drawn = MixedSampler(60)(context_for(TAKEN, [0, 1, 2], [0, 1, 2], SHARE))
    for place, taken in enumerate(TAKEN):
        assert drawn.is_masked[place].tolist() == [row in taken for row in drawn.rows]
    assert drawn.is_masked[0, 0]
    assert drawn.is_masked[0, 3:].any()


def test_a_row_without_any_negative_gives_a_finite_loss():
    context = knows_all(SHARE)
    assert torch.isfinite(loss_of(context, MixedSampler(9)(context)))
