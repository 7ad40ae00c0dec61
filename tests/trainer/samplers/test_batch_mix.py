import math

import pytest
import torch
from torch.nn.functional import normalize

from tests.support.sampler_contexts import context_for, context_with_all_seen, loss_of
from trainer.samplers.literature import BatchMixSampler, sample_mixing_weights
from trainer.samplers.simple import sample_in_batch

SHARE = [0.4, 0.3, 0.2, 0.1]
HISTORIES = [[0, 3], [1], [2]]


def step():
    return context_for(HISTORIES, [0, 1, 2], [0, 1, 2], SHARE)


def weights(share, temperature, count=500):
    rng = torch.Generator().manual_seed(0)
    return sample_mixing_weights(torch.tensor(share), count, temperature, rng)


def test_sample_mixing_weights_sum_to_1():
    sampled = weights(SHARE, 1.0)
    assert sampled.shape == (500, 4)
    assert (sampled > 0).all()
    assert sampled.sum(dim=1).tolist() == pytest.approx([1] * 500, abs=1e-6)


def test_sample_mixing_weights_favour_rare_items():
    sampled = weights([0.4, 0.1], 1.0, count=20_000)
    log_ratio = torch.log(sampled[:, 1] / sampled[:, 0])  # log 4 and a difference of two U(0, 1)
    assert log_ratio.mean().item() == pytest.approx(math.log(4), abs=0.02)
    assert (log_ratio - math.log(4)).abs().max() <= 1


def test_sample_mixing_weights_low_temperature_is_sharper():
    assert weights([0.25] * 4, 0.05).amax(dim=1).mean() > weights([0.25] * 4, 1.0).amax()


def test_batch_mix_mixtures_are_distinct_unit_vectors():
    sampled = BatchMixSampler(6, 0.2, 1.0)(step())
    mixtures = sampled.vectors[3:]
    assert mixtures.shape == (6, 8)
    assert mixtures.norm(dim=1).tolist() == pytest.approx([1] * 6)
    assert len({tuple(row) for row in mixtures.tolist()}) == 6


def test_batch_mix_single_item_equals_that_item():
    context = context_for(HISTORIES, [0], [0], SHARE)
    sampled = BatchMixSampler(2, 0.2, 1.0)(context)
    torch.testing.assert_close(sampled.vectors[1:], normalize(context.positives).expand(2, -1))


def test_batch_mix_masks_batch_but_no_mixture():
    sampled = BatchMixSampler(2, 0.2, 1.0)(step())
    assert torch.equal(sampled.is_masked[:, :3], sample_in_batch(step()).is_masked)
    assert not sampled.is_masked[:, 3:].any()
    assert sampled.rows is None
    assert sampled.num_encoded == 0


@pytest.mark.parametrize("in_batch_weight", [0.2, 0.7])
def test_batch_mix_weights_batch_and_mixture_sums(in_batch_weight):
    context = step()
    sampled = BatchMixSampler(5, in_batch_weight, 1.0)(context)
    scores = context.queries @ sampled.vectors.T / 0.1
    expected = torch.tensor([3 * share for share in SHARE[:3]])
    positive_logits = (context.queries * context.positives).sum(dim=1) / 0.1 - torch.log(expected)
    batch_sum = ((scores[:, :3].exp() / expected) * ~sampled.is_masked[:, :3]).sum(dim=1)
    mixture_sum = (scores[:, 3:].exp() * 4 / 5).sum(dim=1)  # 4 items, 5 mixtures
    total = (
        positive_logits.exp() + in_batch_weight * batch_sum + (1 - in_batch_weight) * mixture_sum
    )
    assert loss_of(context, sampled).item() == pytest.approx(
        (total.log() - positive_logits).mean().item()
    )


def test_batch_mix_gradient_flows_into_all_positives():
    context = step()
    mixtures = BatchMixSampler(2, 0.2, 1.0)(context).vectors[3:]
    (gradient,) = torch.autograd.grad(mixtures[:, 0].sum(), context.positives)
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_batch_mix_all_seen_row_has_finite_loss():
    context = context_with_all_seen(SHARE)
    assert torch.isfinite(loss_of(context, BatchMixSampler(3, 0.2, 1.0)(context)))
