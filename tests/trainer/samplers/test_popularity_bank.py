import pytest
import torch

from tests.support.sampler_contexts import context_for, context_with_all_seen, loss_of, unit
from trainer.samplers.banks import PopularityBankSampler
from trainer.samplers.simple import PopularitySampler

SHARE = [0.4, 0.3, 0.2, 0.1, 0.0]
HISTORIES = [[0, 2], [1], [3]]


def run_step(sampler, step):
    """Run one step; each step has other item vectors, as in training."""
    table = unit(len(SHARE), seed=100 + step)
    context = context_for(HISTORIES, [0, 1], [0, 1], SHARE, table=table, step=step)
    return sampler(context), context, table


def without_bank(step, count):
    return run_step(PopularitySampler(count, 0.75), step)[0]


def test_popularity_bank_is_first_in_first_out():
    sampler = PopularityBankSampler(2, 0.75, size=3, warmup_steps=0)
    fresh = [without_bank(step, 2).rows.tolist() for step in range(4)]
    sampled_rows = [run_step(sampler, step)[0].rows.tolist() for step in range(4)]
    assert sampled_rows[:2] == [fresh[0], fresh[1] + fresh[0]]
    assert sampled_rows[2] == fresh[2] + fresh[0][1:] + fresh[1]
    assert sampled_rows[3] == fresh[3] + fresh[1][1:] + fresh[2]


def test_popularity_bank_before_warmup_equals_popularity():
    sampler = PopularityBankSampler(6, 0.75, size=10, warmup_steps=2)
    for step in range(2):
        sampled, expected = run_step(sampler, step)[0], without_bank(step, 6)
        for name in ("rows", "vectors", "log_q", "positive_log_q", "is_masked"):
            assert torch.equal(getattr(sampled, name), getattr(expected, name)), name
    assert len(run_step(sampler, 2)[0].rows) == 16


def test_popularity_bank_log_q_counts_new_items_and_bank():
    sampler = PopularityBankSampler(6, 0.75, size=4, warmup_steps=0)
    run_step(sampler, 0)
    sampled, context, _ = run_step(sampler, 1)
    powers = [share**0.75 for share in SHARE]
    all_counts = [10 * power / sum(powers) for power in powers]
    assert sampled.log_q.exp().tolist() == pytest.approx([all_counts[row] for row in sampled.rows])
    expected = [all_counts[row] for row in context.positive_rows]
    assert sampled.positive_log_q.exp().tolist() == pytest.approx(expected)


def test_popularity_bank_scales_gradient_of_new_items_only():
    sampler = PopularityBankSampler(6, 0.75, size=4, warmup_steps=0)
    _, _, old_table = run_step(sampler, 0)
    sampled, _, table = run_step(sampler, 1)
    assert torch.equal(sampled.vectors[6:], old_table[sampled.rows[6:]])
    gradient, old = torch.autograd.grad(
        sampled.vectors.sum(), [table, old_table], allow_unused=True
    )
    times = torch.bincount(sampled.rows[:6], minlength=len(SHARE)).float()
    assert torch.allclose(gradient, (10 / 6 * times)[:, None].expand_as(gradient))
    assert old is None


def test_popularity_bank_masks_seen_and_encodes_new_items():
    sampler = PopularityBankSampler(40, 0.75, size=40, warmup_steps=0)
    run_step(sampler, 0)
    sampled, _, _ = run_step(sampler, 1)
    assert sampled.num_encoded == 40
    for user in range(2):
        seen = [row in HISTORIES[user] for row in sampled.rows.tolist()]
        assert sampled.is_masked[user].tolist() == seen
        assert any(seen[40:])


def test_popularity_bank_all_seen_row_has_finite_loss():
    context = context_with_all_seen(SHARE)
    assert torch.isfinite(loss_of(context, PopularityBankSampler(8, 0.75, 4, 0)(context)))


def test_popularity_bank_resumes_with_its_entries():
    sampler, resumed = (PopularityBankSampler(6, 0.75, 9, 1) for _ in range(2))
    assert sampler.state_dict() == {}
    for step in range(2):
        run_step(sampler, step)
    resumed.load_state_dict(sampler.state_dict())
    sampled, expected = run_step(resumed, 2)[0], run_step(sampler, 2)[0]
    assert torch.equal(sampled.rows, expected.rows)
    assert torch.equal(sampled.vectors, expected.vectors)
