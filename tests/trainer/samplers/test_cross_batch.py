import pytest
import torch

from tests.support.sampler_contexts import (
    config_of,
    context_for,
    knows_all,
    loss_of,
    train_tiny,
    unit,
)
from trainer.samplers.literature import CrossBatchSampler

SHARE = [0.4, 0.3, 0.2, 0.1, 0.0]
TAKEN = [[0, 2], [1], [3]]


def take(sampler, users, positives, step):
    """One step; the item vectors of every step are others, as training moves them."""
    table = unit(len(SHARE), seed=100 + step)
    context = context_for(TAKEN, users, positives, SHARE, table=table, step=step)
    return sampler(context), context, table


def test_past_positives_follow_the_batch_and_the_oldest_leave_first():
    sampler = CrossBatchSampler(size=3, warmup_steps=0)
    seen = [
        take(sampler, [1, 2], pair, number)[0].rows.tolist()
        for number, pair in enumerate([[0, 1], [2, 3], [1, 1], [0, 0]])
    ]
    assert seen == [[0, 1], [2, 3, 0, 1], [1, 1, 1, 2, 3], [0, 0, 3, 1, 1]]


def test_a_past_vector_is_as_its_step_left_it_and_takes_no_gradient():
    sampler = CrossBatchSampler(size=10, warmup_steps=0)
    _, _, old = take(sampler, [0], [0], 0)
    drawn, context, new = take(sampler, [1], [1], 1)
    assert torch.equal(drawn.vectors, torch.stack([new[1], old[0]]))
    loss_of(context, drawn).backward()
    assert old.grad is None
    assert new.grad is not None


def test_the_batch_takes_the_push_of_the_bank_too_and_its_values_stay():
    sampler = CrossBatchSampler(size=10, warmup_steps=0)
    take(sampler, [0, 1, 2], [0, 1, 3], 0)
    drawn, context, _ = take(sampler, [0, 2], [2, 3], 1)  # 2 of the batch, 3 of the bank
    assert torch.equal(drawn.vectors[:2], context.positives)
    (gradient,) = torch.autograd.grad(drawn.vectors.sum(), context.positives)
    assert gradient.flatten().tolist() == pytest.approx([5 / 2] * 16)


def test_the_bank_is_not_used_before_the_warm_up_is_over():
    sampler = CrossBatchSampler(size=10, warmup_steps=2)
    counts = [len(take(sampler, [0], [0], number)[0].rows) for number in range(4)]
    assert counts == [1, 1, 3, 4]


def test_batch_and_bank_and_positive_have_the_law_of_all_that_is_held():
    sampler = CrossBatchSampler(size=10, warmup_steps=0)
    take(sampler, [0, 1, 2], [0, 1, 3], 0)
    drawn, _, _ = take(sampler, [0, 1], [2, 1], 1)
    law = [5 * share for share in SHARE]  # 2 of the batch, 3 of the bank
    assert drawn.log_q.exp().tolist() == pytest.approx([law[row] for row in drawn.rows])
    assert drawn.positive_log_q.exp().tolist() == pytest.approx([law[2], law[1]])


def test_every_known_positive_is_masked_in_the_bank_too():
    sampler = CrossBatchSampler(size=10, warmup_steps=0)
    take(sampler, [0, 1, 2], [0, 1, 3], 0)
    drawn, _, _ = take(sampler, [0], [2], 1)
    assert drawn.rows.tolist() == [2, 0, 1, 3]
    assert drawn.is_masked.tolist() == [[True, True, False, False]]


def test_nothing_is_encoded():
    assert take(CrossBatchSampler(9, 0), [0], [0], 0)[0].num_encoded == 0


def test_a_row_without_any_negative_gives_a_finite_loss():
    context = knows_all(SHARE)
    assert torch.isfinite(loss_of(context, CrossBatchSampler(4, 0)(context)))


def test_state_without_a_step_is_empty_and_can_be_put_back():
    sampler = CrossBatchSampler(4, 0)
    assert sampler.state_dict() == {}
    sampler.load_state_dict({})
    assert take(sampler, [0], [0], 0)[0].rows.tolist() == [0]


class PulledPlugError(Exception):
    pass


class Interrupted(CrossBatchSampler):
    """Stops in the middle of the second epoch."""

    def __call__(self, context):
        if context.step == 11:
            raise PulledPlugError
        return super().__call__(context)


def test_a_run_that_goes_on_takes_the_very_steps_of_one_that_never_stopped(tmp_path):
    config = config_of({"name": "cross-batch"}, epochs=3, checkpoint_interval_s=0)
    straight, resumed = CrossBatchSampler(150, 4), CrossBatchSampler(150, 4)
    undisturbed = train_tiny(tmp_path / "one", straight, config)
    with pytest.raises(PulledPlugError):
        train_tiny(tmp_path / "two", Interrupted(150, 4), config)
    gone_on = train_tiny(tmp_path / "two", resumed, config)
    for name, wanted in undisturbed.towers.state_dict().items():
        assert torch.equal(gone_on.towers.state_dict()[name], wanted), name
    for name, wanted in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], wanted), name
    assert [row["loss"] for row in gone_on.progress.curve] == [
        row["loss"] for row in undisturbed.progress.curve
    ]
