import math
from dataclasses import replace

import pytest
import torch

from tests.support.training_data import unit
from trainer.loss import measure_hardness, sampled_softmax, score_vectors
from trainer.samplers.base import SampledNegatives

QUERY = torch.tensor([[1.0, 0.0]])
POSITIVE = torch.tensor([[0.6, 0.8]])  # score 0.6
NEGATIVE = torch.tensor([[0.8, 0.6]])  # score 0.8


def negatives(vectors, log_q=0.0, masked=(), positive_log_q=None, batch=1):
    """Negatives with the columns in `masked` masked for all rows."""
    count = vectors.shape[-2]
    is_masked = torch.zeros(batch, count, dtype=torch.bool)
    is_masked[:, list(masked)] = True
    return SampledNegatives(
        vectors, torch.as_tensor(log_q).expand(count), is_masked, positive_log_q
    )


def test_softmax_applies_temperature_before_log_q():
    sampled = negatives(NEGATIVE, math.log(2), positive_log_q=torch.tensor([math.log(0.5)]))
    # positive 0.6 / 0.5 + log 2, negative 0.8 / 0.5 - log 2: the difference is 0.4 - 2 log 2
    loss = sampled_softmax(QUERY, POSITIVE, sampled, temperature=0.5, log_q_share=1)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(0.4) / 4))


def test_softmax_without_log_q_share_is_plain_softmax():
    sampled = negatives(NEGATIVE, math.log(2), positive_log_q=torch.tensor([math.log(0.5)]))
    loss = sampled_softmax(QUERY, POSITIVE, sampled, temperature=0.5, log_q_share=0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(0.4)))


def test_log_q_reduces_gradient_of_popular_negatives():
    pair = torch.stack([NEGATIVE[0], NEGATIVE[0]]).requires_grad_()
    popular_and_rare = torch.log(torch.tensor([5.0, 0.5]))
    gradients = {}
    for share in (0.0, 1.0):
        sampled = negatives(pair, popular_and_rare)
        sampled_softmax(QUERY, POSITIVE, sampled, 0.5, share).backward()
        gradients[share] = pair.grad.norm(dim=1)
        pair.grad = None
    assert gradients[0.0][0] == gradients[0.0][1]
    assert gradients[1.0][0] < gradients[0.0][0] < gradients[1.0][1]


def test_log_q_share_scales_log_q():
    log_q = torch.tensor([1.5, -0.5, 0.25])
    positive = torch.tensor([0.75])
    whole = negatives(unit(3, width=2), log_q, (), positive)
    half = negatives(unit(3, width=2), log_q / 2, (), positive / 2)
    loss = sampled_softmax(QUERY, POSITIVE, whole, 1, 0.5)
    assert loss.item() == pytest.approx(sampled_softmax(QUERY, POSITIVE, half, 1, 1.0).item())


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_log_weight_is_added_whatever_the_share_of_log_q(share):
    sampled = replace(negatives(NEGATIVE, math.log(2)), log_weight=-3.0)
    loss = sampled_softmax(QUERY, POSITIVE, sampled, temperature=0.5, log_q_share=share)
    expected = math.exp(0.4 - 3 - share * math.log(2))
    assert loss.item() == pytest.approx(math.log(1 + expected))


def test_softmax_leaves_positive_without_log_q_unchanged():
    sampled = negatives(NEGATIVE, math.log(2), positive_log_q=None)
    loss = sampled_softmax(QUERY, POSITIVE, sampled, temperature=0.5, log_q_share=1)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(0.4) / 2))


def test_uncorrected_positive_has_the_gradient_of_the_weighted_loss():
    """Of Khrylchenko et al. (RecSys 2025): -sg(1 - p) (s_positive - log sum of the negatives)."""
    log_q, gradients = torch.linspace(-1, 1, 6), []
    for is_weighted in (False, True):
        leaves = [unit(count, seed=count).requires_grad_() for count in (3, 4, 6)]
        queries, positives, vectors = leaves[0], leaves[1][:3], leaves[2]
        if is_weighted:
            score = (queries * positives).sum(dim=1) / 0.1
            others = torch.logsumexp(queries @ vectors.T / 0.1 - log_q, dim=1)
            weight = 1 - torch.sigmoid(score - others)
            (-(weight.detach() * (score - others)).mean()).backward()
        else:
            sampled_softmax(
                queries, positives, negatives(vectors, log_q, batch=3), 0.1, 1
            ).backward()
        gradients.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
        assert ours.norm() > 0.1


def test_positive_log_q_can_be_left_out_in_both_terms():
    corrected = negatives(NEGATIVE, math.log(2), positive_log_q=torch.tensor([math.log(0.5)]))
    uncorrected = replace(corrected, positive_log_q=None)
    for own in (None, 0.1):
        expected, sampled = (
            replace(each, own_term=own and each, own_term_weight=own or 0.0)
            for each in (uncorrected, corrected)
        )
        loss = sampled_softmax(QUERY, POSITIVE, sampled, 0.5, 1, positive_log_q=False)
        assert loss.item() == sampled_softmax(QUERY, POSITIVE, expected, 0.5, 1).item()
        assert loss.item() != sampled_softmax(QUERY, POSITIVE, sampled, 0.5, 1).item()


@pytest.mark.parametrize("has_gradient", [True, False])
def test_own_term_pulls_positives_only_if_it_pushes_items(has_gradient):
    leaves = [unit(count, seed=count).requires_grad_() for count in (3, 4, 5, 6)]
    queries, positives, vectors, virtual = leaves
    own = negatives(virtual if has_gradient else virtual.detach(), batch=3)
    sampled = replace(negatives(vectors, batch=3), own_term=own, own_term_weight=1.0)
    plain = replace(sampled, own_term=None)
    gradients = [
        torch.autograd.grad(sampled_softmax(queries, positives[:3], each, 0.1, 1), leaves[:2])
        for each in (sampled, plain)
    ]
    (of_queries, of_positives), (plain_queries, plain_positives) = gradients
    assert not torch.allclose(of_queries, plain_queries)
    assert torch.allclose(of_positives, plain_positives) != has_gradient


def test_softmax_ignores_masked_copy_of_the_positive():
    twice = torch.cat([POSITIVE, NEGATIVE])
    alone = sampled_softmax(QUERY, POSITIVE, negatives(NEGATIVE), 0.5, 1)
    beside = sampled_softmax(QUERY, POSITIVE, negatives(twice, masked=[0]), 0.5, 1)
    counted = sampled_softmax(QUERY, POSITIVE, negatives(twice), 0.5, 1)
    assert beside.item() == pytest.approx(alone.item())
    assert counted.item() > beside.item()


def test_masked_negative_has_no_effect_and_no_gradient():
    vectors = unit(5).requires_grad_()
    queries, positives = unit(3, seed=1), unit(3, seed=2)
    masked = sampled_softmax(queries, positives, negatives(vectors, masked=[1, 3], batch=3), 0.1, 1)
    masked.backward()
    left = sampled_softmax(queries, positives, negatives(vectors[[0, 2, 4]], batch=3), 0.1, 1)
    assert masked.item() == pytest.approx(left.item())
    assert (vectors.grad[[1, 3]] == 0).all()
    assert (vectors.grad[[0, 2, 4]] != 0).any(dim=1).all()


def test_all_masked_row_has_zero_loss_and_finite_gradients():
    queries = unit(2, seed=1).requires_grad_()
    sampled = negatives(unit(4), masked=range(4), batch=2)
    loss = sampled_softmax(queries, unit(2, seed=2), sampled, 0.05, 1)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(queries.grad).all()


def test_shared_negatives_equal_per_row_copies():
    queries, positives, shared = unit(3, seed=1), unit(3, seed=2), unit(6)
    log_q = torch.linspace(-1, 1, 6)
    is_masked = torch.rand(3, 6, generator=torch.Generator().manual_seed(0)) < 0.3
    copied = shared.expand(3, 6, -1)
    assert torch.allclose(score_vectors(queries, shared), score_vectors(queries, copied))
    both = (
        SampledNegatives(shared, log_q, is_masked),
        SampledNegatives(copied, log_q.expand(3, 6), is_masked),
    )
    losses = [sampled_softmax(queries, positives, sampled, 0.1, 1).item() for sampled in both]
    assert losses[0] == pytest.approx(losses[1])


def test_negative_sets_are_combined_in_a_single_softmax():
    sampled = unit(5, width=2)
    whole = sampled_softmax(QUERY, POSITIVE, negatives(sampled, 0.3, (4,)), 0.5, 1)
    per_row = negatives(sampled[None, 3:], 0.3, (1,))
    split = replace(negatives(sampled[:3], 0.3), next_set=per_row)
    assert sampled_softmax(QUERY, POSITIVE, split, 0.5, 1).item() == pytest.approx(whole.item())


def test_measure_hardness_means_unmasked_scores_by_source():
    virtual = replace(negatives(POSITIVE), source="virtual")
    masked = replace(negatives(NEGATIVE, masked=[0]), source="hard")
    pair = torch.cat([NEGATIVE, -NEGATIVE, POSITIVE])
    sampled = replace(negatives(pair, masked=[2]), source="easy", next_set=masked, own_term=virtual)
    hardness = measure_hardness(QUERY, POSITIVE, sampled)
    assert hardness == pytest.approx({"positives": 0.6, "easy": 0.0, "virtual": 0.6})
