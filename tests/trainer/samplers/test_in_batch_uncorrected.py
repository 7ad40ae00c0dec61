import torch

from tests.support.sampler_contexts import context_for, knows_all, loss_of
from trainer.samplers.simple import sample_in_batch, sample_in_batch_uncorrected

SHARE = [0.5, 0.3, 0.1, 0.1]


def test_it_draws_and_masks_what_in_batch_does():
    context = context_for([[0, 2], [1]], [0, 1], [0, 1], SHARE)
    mine, corrected = sample_in_batch_uncorrected(context), sample_in_batch(context)
    assert mine.rows is corrected.rows
    assert mine.vectors is corrected.vectors
    assert torch.equal(mine.is_masked, corrected.is_masked)


def test_its_loss_is_that_of_in_batch_with_nothing_of_log_q_subtracted():
    context = context_for([[0], [1], [2]], [0, 1, 2], [0, 1, 2], SHARE)
    mine, corrected = sample_in_batch_uncorrected(context), sample_in_batch(context)
    assert loss_of(context, mine, 1.0) == loss_of(context, corrected, 0.0)
    assert loss_of(context, mine, 1.0) != loss_of(context, corrected, 1.0)


def test_a_row_without_any_negative_gives_a_finite_loss():
    context = knows_all(SHARE)
    assert torch.isfinite(loss_of(context, sample_in_batch_uncorrected(context)))
