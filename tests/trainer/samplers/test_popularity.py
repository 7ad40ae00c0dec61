import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from tests.support.sampler_contexts import context_for, knows_all, loss_of
from trainer.samplers.simple import PopularitySampler

SHARE = [0.0, 0.5, 0.25, 0.0, 0.2, 0.05, 0.0]  # first, last and one between are never targets
TAKEN = [[1, 4], [2]]


def step(number=0):
    return context_for(TAKEN, [0, 1], [1, 2], SHARE, step=number)


@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0])
def test_items_are_drawn_as_often_as_log_q_says(exponent):
    sampler, counts, steps = PopularitySampler(40, exponent), np.zeros(7), 500
    told = np.zeros(7)
    for number in range(steps):
        drawn = sampler(step(number))
        counts += np.bincount(drawn.rows, minlength=7)
        told[drawn.rows] = drawn.log_q.exp()
    assert chisquare(counts[told > 0], told[told > 0] * steps).pvalue > 0.001


@pytest.mark.parametrize("exponent", [0.0, 0.75, 2.0])
def test_an_item_that_never_is_a_target_is_never_drawn(exponent):
    rows = PopularitySampler(10_000, exponent)(step()).rows
    assert set(rows.tolist()) == {1, 2, 4, 5}


def test_the_power_is_taken_of_the_share_and_the_positive_has_the_same_law():
    drawn = PopularitySampler(8, 0.75)(step())
    powers = [share**0.75 for share in SHARE]
    law = [8 * power / sum(powers) for power in powers]
    assert drawn.log_q.exp().tolist() == pytest.approx([law[row] for row in drawn.rows])
    assert drawn.positive_log_q.tolist() == pytest.approx([math.log(law[1]), math.log(law[2])])


def test_a_popular_negative_weighs_less_than_a_rare_one_of_the_same_score():
    drawn = PopularitySampler(200, 1.0)(step())
    of_row = dict(zip(drawn.rows.tolist(), drawn.log_q.tolist(), strict=True))
    assert of_row[1] > of_row[2] > of_row[5]  # log q is subtracted


def test_known_positives_are_masked_and_not_redrawn():
    drawn = PopularitySampler(500, 0.75)(step())
    for place, taken in enumerate(TAKEN):
        assert drawn.is_masked[place].tolist() == [row in taken for row in drawn.rows]
        assert drawn.is_masked[place].any()


def test_other_shares_give_another_law():
    sampler = PopularitySampler(50, 1.0)
    sampler(step())
    rows = sampler(context_for([[0]], [0], [0], [0.5, 0.5, 0.0])).rows
    assert set(rows.tolist()) == {0, 1}


def test_a_row_without_any_negative_gives_a_finite_loss():
    context = knows_all([0.5, 0.5])
    drawn = PopularitySampler(4, 0.75)(context)
    assert torch.isfinite(loss_of(context, drawn))
    assert drawn.num_encoded == 4
