import math

import pytest
import torch
from torch.nn.functional import normalize

from tests.support.sampler_contexts import context_for, knows_all, loss_of
from trainer.samplers.literature import BatchMixSampler, sample_mixing_weights
from trainer.samplers.simple import sample_in_batch

SHARE = [0.4, 0.3, 0.2, 0.1]
TAKEN = [[0, 3], [1], [2]]


def step():
    return context_for(TAKEN, [0, 1, 2], [0, 1, 2], SHARE)


def weights(share, temperature, count=500):
    rng = torch.Generator().manual_seed(0)
    return sample_mixing_weights(torch.tensor(share), count, temperature, rng)


def test_mixing_weights_are_shares_of_one():
    drawn = weights(SHARE, 1.0)
    assert drawn.shape == (500, 4)
    assert (drawn > 0).all()
    assert drawn.sum(dim=1).tolist() == pytest.approx([1] * 500, abs=1e-6)


def test_a_rare_item_weighs_more_by_the_ratio_of_the_shares():
    drawn = weights([0.4, 0.1], 1.0, count=20_000)
    log_ratio = torch.log(drawn[:, 1] / drawn[:, 0])  # log 4 and a difference of two U(0, 1)
    assert log_ratio.mean().item() == pytest.approx(math.log(4), abs=0.02)
    assert (log_ratio - math.log(4)).abs().max() <= 1


def test_a_lower_temperature_makes_a_mixture_of_fewer_items():
    assert weights([0.25] * 4, 0.05).amax(dim=1).mean() > weights([0.25] * 4, 1.0).amax()


def test_mixtures_are_unit_rows_between_the_batch_and_differ():
    drawn = BatchMixSampler(6, 0.2, 1.0)(step())
    mixtures = drawn.vectors[3:]
    assert mixtures.shape == (6, 8)
    assert mixtures.norm(dim=1).tolist() == pytest.approx([1] * 6)
    assert len({tuple(row) for row in mixtures.tolist()}) == 6


def test_with_one_item_in_the_batch_every_mixture_is_that_item():
    context = context_for(TAKEN, [0], [0], SHARE)
    drawn = BatchMixSampler(2, 0.2, 1.0)(context)
    torch.testing.assert_close(drawn.vectors[1:], normalize(context.positives).expand(2, -1))


def test_the_batch_is_masked_as_ever_and_a_mixture_cannot_be():
    drawn = BatchMixSampler(2, 0.2, 1.0)(step())
    assert torch.equal(drawn.is_masked[:, :3], sample_in_batch(step()).is_masked)
    assert not drawn.is_masked[:, 3:].any()
    assert drawn.rows is None
    assert drawn.num_encoded == 0


@pytest.mark.parametrize("in_batch_weight", [0.2, 0.7])
def test_both_sums_of_exponentials_have_their_weight(in_batch_weight):
    context = step()
    drawn = BatchMixSampler(5, in_batch_weight, 1.0)(context)
    scores = context.queries @ drawn.vectors.T / 0.1
    law = torch.tensor([3 * share for share in SHARE[:3]])
    own = (context.queries * context.positives).sum(dim=1) / 0.1 - torch.log(law)
    of_batch = ((scores[:, :3].exp() / law) * ~drawn.is_masked[:, :3]).sum(dim=1)
    of_mixtures = (scores[:, 3:].exp() * 4 / 5).sum(dim=1)  # 4 items, 5 mixtures
    whole = own.exp() + in_batch_weight * of_batch + (1 - in_batch_weight) * of_mixtures
    assert loss_of(context, drawn).item() == pytest.approx((whole.log() - own).mean().item())


def test_gradient_flows_through_a_mixture_into_the_batch():
    context = step()
    mixtures = BatchMixSampler(2, 0.2, 1.0)(context).vectors[3:]
    (gradient,) = torch.autograd.grad(mixtures[:, 0].sum(), context.positives)
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_a_row_that_knows_the_whole_batch_gives_a_finite_loss():
    context = knows_all(SHARE)
    assert torch.isfinite(loss_of(context, BatchMixSampler(3, 0.2, 1.0)(context)))
