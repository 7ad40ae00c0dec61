import pytest
import torch

from tests.support.sampler_contexts import (
    config_of,
    context_for,
    context_with_all_seen,
    loss_of,
    train_tiny,
    unit,
)
from trainer.samplers.banks import CrossBatchSampler

SHARE = [0.4, 0.3, 0.2, 0.1, 0.0]
HISTORIES = [[0, 2], [1], [3]]


def run_step(sampler, users, positives, step):
    """Run one step; each step has other item vectors, as in training."""
    table = unit(len(SHARE), seed=100 + step)
    context = context_for(HISTORIES, users, positives, SHARE, table=table, step=step)
    return sampler(context), context, table


def test_cross_batch_bank_is_first_in_first_out():
    sampler = CrossBatchSampler(size=3, warmup_steps=0)
    sampled_rows = [
        run_step(sampler, [1, 2], pair, number)[0].rows.tolist()
        for number, pair in enumerate([[0, 1], [2, 3], [1, 1], [0, 0]])
    ]
    assert sampled_rows == [[0, 1], [2, 3, 0, 1], [1, 1, 1, 2, 3], [0, 0, 3, 1, 1]]


def test_cross_batch_bank_vectors_are_stale_and_detached():
    sampler = CrossBatchSampler(size=10, warmup_steps=0)
    _, _, old_table = run_step(sampler, [0], [0], 0)
    sampled, context, new_table = run_step(sampler, [1], [1], 1)
    assert torch.equal(sampled.vectors, torch.stack([new_table[1], old_table[0]]))
    loss_of(context, sampled).backward()
    assert old_table.grad is None
    assert new_table.grad is not None


def test_cross_batch_scales_gradient_of_the_batch_only():
    sampler = CrossBatchSampler(size=10, warmup_steps=0)
    run_step(sampler, [0, 1, 2], [0, 1, 3], 0)
    sampled, context, _ = run_step(sampler, [0, 2], [2, 3], 1)  # 2 of the batch, 3 of the bank
    assert torch.equal(sampled.vectors[:2], context.positives)
    (gradient,) = torch.autograd.grad(sampled.vectors.sum(), context.positives)
    assert gradient.flatten().tolist() == pytest.approx([5 / 2] * 16)


def test_cross_batch_bank_is_unused_before_warmup():
    sampler = CrossBatchSampler(size=10, warmup_steps=2)
    counts = [len(run_step(sampler, [0], [0], number)[0].rows) for number in range(4)]
    assert counts == [1, 1, 3, 4]


def test_cross_batch_log_q_counts_batch_and_bank():
    sampler = CrossBatchSampler(size=10, warmup_steps=0)
    run_step(sampler, [0, 1, 2], [0, 1, 3], 0)
    sampled, _, _ = run_step(sampler, [0, 1], [2, 1], 1)
    all_counts = [5 * share for share in SHARE]  # 2 of the batch, 3 of the bank
    assert sampled.log_q.exp().tolist() == pytest.approx([all_counts[row] for row in sampled.rows])
    assert sampled.positive_log_q.exp().tolist() == pytest.approx([all_counts[2], all_counts[1]])


def test_cross_batch_masks_seen_items_in_bank():
    sampler = CrossBatchSampler(size=10, warmup_steps=0)
    run_step(sampler, [0, 1, 2], [0, 1, 3], 0)
    sampled, _, _ = run_step(sampler, [0], [2], 1)
    assert sampled.rows.tolist() == [2, 0, 1, 3]
    assert sampled.is_masked.tolist() == [[True, True, False, False]]


def test_cross_batch_encodes_no_item():
    assert run_step(CrossBatchSampler(9, 0), [0], [0], 0)[0].num_encoded == 0


def test_cross_batch_all_seen_row_has_finite_loss():
    context = context_with_all_seen(SHARE)
    assert torch.isfinite(loss_of(context, CrossBatchSampler(4, 0)(context)))


def test_cross_batch_empty_state_dict_round_trips():
    sampler = CrossBatchSampler(4, 0)
    assert sampler.state_dict() == {}
    sampler.load_state_dict({})
    assert run_step(sampler, [0], [0], 0)[0].rows.tolist() == [0]


class InterruptedRunError(Exception):
    pass


class Interrupted(CrossBatchSampler):
    """Fails in the middle of the second epoch."""

    def __call__(self, context):
        if context.step == 11:
            raise InterruptedRunError
        return super().__call__(context)


def test_cross_batch_resumed_run_equals_uninterrupted(tmp_path):
    config = config_of({"name": "cross-batch"}, epochs=3, checkpoint_interval_s=0)
    straight, resumed = CrossBatchSampler(150, 4), CrossBatchSampler(150, 4)
    uninterrupted = train_tiny(tmp_path / "uninterrupted", straight, config)
    with pytest.raises(InterruptedRunError):
        train_tiny(tmp_path / "interrupted", Interrupted(150, 4), config)
    continued = train_tiny(tmp_path / "interrupted", resumed, config)
    for name, expected in uninterrupted.towers.state_dict().items():
        assert torch.equal(continued.towers.state_dict()[name], expected), name
    for name, expected in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], expected), name
    assert [row["loss"] for row in continued.progress.curve] == [
        row["loss"] for row in uninterrupted.progress.curve
    ]
