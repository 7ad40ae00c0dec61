import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from tests.support.training_data import context_for
from trainer.config import check_config
from trainer.sampler_factory import build_sampler
from trainer.samplers.simple import UniformSampler, sample_in_batch

# users 0 and 1 share item 2; user 2 took 5 alone
TAKEN = [[0, 1, 2], [2, 3], [5]]


def test_in_batch_masks_every_known_positive_of_the_user_and_twins_of_the_positive():
    drawn = sample_in_batch(context_for(TAKEN, [0, 1, 2, 0], [2, 2, 5, 1], item_count=8))
    assert drawn.rows.tolist() == [2, 2, 5, 1]
    assert drawn.is_masked.tolist() == [
        [True, True, False, True],  # user 0 took 2 and 1; the second 2 is its positive's twin
        [True, True, False, False],
        [False, False, True, False],
        [True, True, False, True],
    ]


def test_in_batch_shares_the_vectors_of_the_positives():
    context = context_for(TAKEN, [0, 1], [2, 3], item_count=8)
    assert sample_in_batch(context).vectors is context.positives


def test_in_batch_tells_log_of_batch_times_share_as_log_q_of_negatives_and_positives():
    share = torch.tensor([0.4, 0.3, 0.2, 0.1])
    drawn = sample_in_batch(context_for([[0], [3]], [0, 1], [0, 3], 4, target_share=share))
    wanted = [math.log(2 * 0.4), math.log(2 * 0.1)]
    assert drawn.log_q.tolist() == pytest.approx(wanted)
    assert drawn.positive_log_q.tolist() == pytest.approx(wanted)


def test_in_batch_log_q_is_what_the_counts_of_many_batches_say():
    rng = np.random.default_rng(0)
    share = np.array([0.5, 0.3, 0.2])
    counts = np.bincount(rng.choice(3, size=(2_000, 64), p=share).ravel(), minlength=3) / 2_000
    context = context_for([[0]], [0] * 64, [0, 1, 2, *[0] * 61], 3, torch.tensor(share))
    assert sample_in_batch(context).log_q[:3].exp().tolist() == pytest.approx(counts, rel=0.02)


def test_uniform_draws_every_item_alike_and_none_outside_the_catalogue():
    counts = np.zeros(20)
    for seed in range(400):
        drawn = UniformSampler(25)(context_for(TAKEN, [0], [1], item_count=20, seed=seed)).rows
        assert len(drawn) == 25
        counts += np.bincount(drawn, minlength=20)  # a row of 20 or more would not fit
    assert chisquare(counts).pvalue > 0.001


def test_uniform_masks_known_positives_and_never_redraws_them():
    context = context_for([list(range(9)), [9]], [0, 1], [0, 9], item_count=10)
    drawn = UniformSampler(500)(context)
    for place, took in enumerate((set(range(9)), {9})):
        assert drawn.is_masked[place].tolist() == [row in took for row in drawn.rows.tolist()]
    assert np.bincount(drawn.rows, minlength=10).min() > 20  # masked items are drawn all the same


def test_uniform_tells_log_of_count_over_items_everywhere():
    drawn = UniformSampler(5)(context_for(TAKEN, [0, 1], [0, 2], item_count=20))
    assert drawn.log_q.tolist() == pytest.approx([math.log(5 / 20)] * 5)
    assert drawn.positive_log_q.tolist() == pytest.approx([math.log(5 / 20)] * 2)


def test_uniform_gives_the_vectors_of_what_it_drew():
    context = context_for(TAKEN, [0], [0], item_count=20)
    drawn = UniformSampler(7)(context)
    assert torch.equal(drawn.vectors, context.encode(drawn.rows))


def test_the_same_step_draws_the_same_and_another_one_something_else():
    one, again, other = (
        UniformSampler(30)(context_for(TAKEN, [0], [0], 20, seed=seed)).rows.tolist()
        for seed in (7, 7, 8)
    )
    assert one == again
    assert one != other


def test_a_configuration_chooses_its_sampler_by_name():
    values = {"training": {"sampler": {"name": "uniform", "count": 9}}}
    assert build_sampler(check_config(values, "a test").training.sampler) == UniformSampler(9)
    assert build_sampler(check_config({}, "a test").training.sampler) is sample_in_batch
