import torch

from tests.support.sampler_contexts import context_for, context_with_all_seen, loss_of
from trainer.samplers.simple import sample_in_batch, sample_in_batch_uncorrected

SHARE = [0.5, 0.3, 0.1, 0.1]


def test_uncorrected_samples_and_masks_like_in_batch():
    context = context_for([[0, 2], [1]], [0, 1], [0, 1], SHARE)
    mine, corrected = sample_in_batch_uncorrected(context), sample_in_batch(context)
    assert mine.rows is corrected.rows
    assert mine.vectors is corrected.vectors
    assert torch.equal(mine.is_masked, corrected.is_masked)


def test_uncorrected_loss_equals_log_q_share_zero():
    context = context_for([[0], [1], [2]], [0, 1, 2], [0, 1, 2], SHARE)
    mine, corrected = sample_in_batch_uncorrected(context), sample_in_batch(context)
    assert loss_of(context, mine, 1.0) == loss_of(context, corrected, 0.0)
    assert loss_of(context, mine, 1.0) != loss_of(context, corrected, 1.0)


def test_uncorrected_all_seen_row_has_finite_loss():
    context = context_with_all_seen(SHARE)
    assert torch.isfinite(loss_of(context, sample_in_batch_uncorrected(context)))
