import math
from dataclasses import replace

import pytest
import torch

from tests.support.training_data import unit
from trainer.loss import sampled_softmax, scores_of
from trainer.samplers.base import SampledNegatives

QUERY = torch.tensor([[1.0, 0.0]])
POSITIVE = torch.tensor([[0.6, 0.8]])  # score 0.6
NEGATIVE = torch.tensor([[0.8, 0.6]])  # score 0.8


def negatives(vectors, log_q=0.0, masked=(), positive_log_q=None, batch=1):
    """Negatives of which the columns in `masked` do not count for any row."""
    count = vectors.shape[-2]
    is_masked = torch.zeros(batch, count, dtype=torch.bool)
    is_masked[:, list(masked)] = True
    return SampledNegatives(
        vectors, torch.as_tensor(log_q).expand(count), is_masked, positive_log_q
    )


def test_scores_are_divided_by_the_temperature_first_and_corrected_second():
    drawn = negatives(NEGATIVE, math.log(2), positive_log_q=torch.tensor([math.log(0.5)]))
    # positive 0.6 / 0.5 + log 2, negative 0.8 / 0.5 - log 2: they are 0.4 - 2 log 2 apart
    found = sampled_softmax(QUERY, POSITIVE, drawn, temperature=0.5, log_q_share=1)
    assert found.item() == pytest.approx(math.log(1 + math.exp(0.4) / 4))


def test_without_correction_the_hand_computed_softmax_remains():
    drawn = negatives(NEGATIVE, math.log(2), positive_log_q=torch.tensor([math.log(0.5)]))
    found = sampled_softmax(QUERY, POSITIVE, drawn, temperature=0.5, log_q_share=0)
    assert found.item() == pytest.approx(math.log(1 + math.exp(0.4)))


def test_a_popular_item_weighs_less_as_a_negative_when_corrected():
    pair = torch.stack([NEGATIVE[0], NEGATIVE[0]]).requires_grad_()
    popular_and_rare = torch.log(torch.tensor([5.0, 0.5]))
    pushes = {}
    for share in (0.0, 1.0):
        drawn = negatives(pair, popular_and_rare)
        sampled_softmax(QUERY, POSITIVE, drawn, 0.5, share).backward()
        pushes[share] = pair.grad.norm(dim=1)
        pair.grad = None
    assert pushes[0.0][0] == pushes[0.0][1]
    assert pushes[1.0][0] < pushes[0.0][0] < pushes[1.0][1]


def test_half_of_log_q_is_subtracted_at_half_the_share():
    log_q = torch.tensor([1.5, -0.5, 0.25])
    own = torch.tensor([0.75])
    halved = sampled_softmax(QUERY, POSITIVE, negatives(unit(3, width=2), log_q, (), own), 1, 0.5)
    half = negatives(unit(3, width=2), log_q / 2, (), own / 2)
    assert halved.item() == pytest.approx(sampled_softmax(QUERY, POSITIVE, half, 1, 1.0).item())


def test_a_positive_without_log_q_stays_uncorrected():
    drawn = negatives(NEGATIVE, math.log(2), positive_log_q=None)
    found = sampled_softmax(QUERY, POSITIVE, drawn, temperature=0.5, log_q_share=1)
    assert found.item() == pytest.approx(math.log(1 + math.exp(0.4) / 2))


def test_the_positive_among_the_negatives_is_not_counted_twice_when_masked():
    twice = torch.cat([POSITIVE, NEGATIVE])
    alone = sampled_softmax(QUERY, POSITIVE, negatives(NEGATIVE), 0.5, 1)
    beside = sampled_softmax(QUERY, POSITIVE, negatives(twice, masked=[0]), 0.5, 1)
    counted = sampled_softmax(QUERY, POSITIVE, negatives(twice), 0.5, 1)
    assert beside.item() == pytest.approx(alone.item())
    assert counted.item() > beside.item()


def test_a_masked_negative_has_neither_effect_nor_gradient():
    vectors = unit(5).requires_grad_()
    queries, positives = unit(3, seed=1), unit(3, seed=2)
    masked = sampled_softmax(queries, positives, negatives(vectors, masked=[1, 3], batch=3), 0.1, 1)
    masked.backward()
    left = sampled_softmax(queries, positives, negatives(vectors[[0, 2, 4]], batch=3), 0.1, 1)
    assert masked.item() == pytest.approx(left.item())
    assert (vectors.grad[[1, 3]] == 0).all()
    assert (vectors.grad[[0, 2, 4]] != 0).any(dim=1).all()


def test_a_row_whose_every_negative_is_masked_has_loss_0_and_finite_gradients():
    queries = unit(2, seed=1).requires_grad_()
    drawn = negatives(unit(4), masked=range(4), batch=2)
    loss = sampled_softmax(queries, unit(2, seed=2), drawn, 0.05, 1)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(queries.grad).all()


def test_shared_negatives_equal_copies_of_them_in_every_row():
    queries, positives, shared = unit(3, seed=1), unit(3, seed=2), unit(6)
    log_q = torch.linspace(-1, 1, 6)
    is_masked = torch.rand(3, 6, generator=torch.Generator().manual_seed(0)) < 0.3
    one = SampledNegatives(shared, log_q, is_masked)
    own = SampledNegatives(shared.expand(3, 6, -1), log_q.expand(3, 6), is_masked)
    assert torch.allclose(scores_of(queries, one.vectors), scores_of(queries, own.vectors))
    losses = [sampled_softmax(queries, positives, drawn, 0.1, 1).item() for drawn in (one, own)]
    assert losses[0] == pytest.approx(losses[1])


def test_further_negatives_count_as_if_they_stood_in_one_set():
    drawn = unit(5, width=2)
    whole = sampled_softmax(QUERY, POSITIVE, negatives(drawn, 0.3, (4,)), 0.5, 1)
    per_row = negatives(drawn[None, 3:], 0.3, (1,))
    split = replace(negatives(drawn[:3], 0.3), next_set=per_row)
    assert sampled_softmax(QUERY, POSITIVE, split, 0.5, 1).item() == pytest.approx(whole.item())
