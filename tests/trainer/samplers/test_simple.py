import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from tests.support.training_data import context_for
from trainer.config import validate_config
from trainer.sampler_factory import build_sampler
from trainer.samplers.simple import UniformSampler, sample_in_batch

# users 0 and 1 share item 2; only user 2 has seen 5
HISTORIES = [[0, 1, 2], [2, 3], [5]]


def test_in_batch_masks_seen_items_and_copies_of_positive():
    sampled = sample_in_batch(context_for(HISTORIES, [0, 1, 2, 0], [2, 2, 5, 1], item_count=8))
    assert sampled.rows.tolist() == [2, 2, 5, 1]
    assert sampled.is_masked.tolist() == [
        [True, True, False, True],  # user 0 has seen 2 and 1; the second 2 copies its positive
        [True, True, False, False],
        [False, False, True, False],
        [True, True, False, True],
    ]


def test_in_batch_reuses_vectors_of_positives():
    context = context_for(HISTORIES, [0, 1], [2, 3], item_count=8)
    assert sample_in_batch(context).vectors is context.positives


def test_in_batch_log_q_is_log_of_batch_times_share():
    share = torch.tensor([0.4, 0.3, 0.2, 0.1])
    sampled = sample_in_batch(context_for([[0], [3]], [0, 1], [0, 3], 4, target_share=share))
    expected = [math.log(2 * 0.4), math.log(2 * 0.1)]
    assert sampled.log_q.tolist() == pytest.approx(expected)
    assert sampled.positive_log_q.tolist() == pytest.approx(expected)


def test_in_batch_log_q_matches_observed_counts():
    rng = np.random.default_rng(0)
    share = np.array([0.5, 0.3, 0.2])
    counts = np.bincount(rng.choice(3, size=(2_000, 64), p=share).ravel(), minlength=3) / 2_000
    context = context_for([[0]], [0] * 64, [0, 1, 2, *[0] * 61], 3, torch.tensor(share))
    assert sample_in_batch(context).log_q[:3].exp().tolist() == pytest.approx(counts, rel=0.02)


def test_uniform_samples_every_item_equally():
    counts = np.zeros(20)
    for seed in range(400):
        sampled = UniformSampler(25)(
            context_for(HISTORIES, [0], [1], item_count=20, seed=seed)
        ).rows
        assert len(sampled) == 25
        counts += np.bincount(sampled, minlength=20)  # a row of 20 or more would not fit
    assert chisquare(counts).pvalue > 0.001


def test_uniform_masks_seen_items_without_resampling():
    context = context_for([list(range(9)), [9]], [0, 1], [0, 9], item_count=10)
    sampled = UniformSampler(500)(context)
    for user, history in enumerate((set(range(9)), {9})):
        assert sampled.is_masked[user].tolist() == [row in history for row in sampled.rows.tolist()]
    assert (
        np.bincount(sampled.rows, minlength=10).min() > 20
    )  # masked items are sampled all the same


def test_uniform_log_q_is_log_of_count_over_items():
    sampled = UniformSampler(5)(context_for(HISTORIES, [0, 1], [0, 2], item_count=20))
    assert sampled.log_q.tolist() == pytest.approx([math.log(5 / 20)] * 5)
    assert sampled.positive_log_q.tolist() == pytest.approx([math.log(5 / 20)] * 2)


def test_uniform_returns_vectors_of_sampled_rows():
    context = context_for(HISTORIES, [0], [0], item_count=20)
    sampled = UniformSampler(7)(context)
    assert torch.equal(sampled.vectors, context.encode(sampled.rows))


def test_uniform_same_step_samples_the_same():
    first, repeated, other = (
        UniformSampler(30)(context_for(HISTORIES, [0], [0], 20, seed=seed)).rows.tolist()
        for seed in (7, 7, 8)
    )
    assert first == repeated
    assert first != other


def test_build_sampler_selects_by_name():
    values = {"training": {"sampler": {"name": "uniform", "count": 9}}}
    assert build_sampler(validate_config(values, "a test").training.sampler) == UniformSampler(9)
    values = {"training": {"sampler": {"name": "in-batch"}}}
    assert build_sampler(validate_config(values, "a test").training.sampler) is sample_in_batch
