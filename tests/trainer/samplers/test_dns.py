import pytest
import torch

from index.errors import ConfigError
from tests.support.sampler_contexts import config_of, context_for, context_with_all_seen, loss_of
from trainer.samplers.literature import DnsSampler

ITEMS = 30
SHARE = [1 / ITEMS] * ITEMS
HISTORIES = [list(range(20)), [25], [26, 27]]


def step(number=0):
    return context_for(HISTORIES, [0, 1, 2], [0, 25, 26], SHARE, step=number)


def test_dns_keeps_highest_scoring_unseen_items():
    context = step()
    sampled = DnsSampler(count=60, kept=5)(context)
    scores = context.queries @ sampled.vectors.T
    for user, history in enumerate(HISTORIES):
        allowed = [
            position for position, row in enumerate(sampled.rows.tolist()) if row not in history
        ]
        best = sorted(scores[user, allowed].tolist(), reverse=True)[:5]
        kept = scores[user, ~sampled.is_masked[user]].tolist()
        assert sorted(kept, reverse=True) == best


def test_dns_never_keeps_a_seen_item():
    context = context_for(HISTORIES, [1], [25], SHARE, queries=step().encode(torch.tensor([25])))
    sampled = DnsSampler(count=100, kept=10)(context)
    assert (sampled.rows == 25).any()  # sampled, and nearest to this query
    assert not (~sampled.is_masked[0] & (sampled.rows == 25)).any()


def test_dns_few_unseen_items_keeps_fewer():
    context = context_for([list(range(1, ITEMS)), list(range(ITEMS))], [0, 1], [1, 1], SHARE)
    sampled = DnsSampler(count=20, kept=15)(context)
    kept = [sampled.rows[~mask].tolist() for mask in sampled.is_masked]
    assert kept == [[0] * int((sampled.rows == 0).sum()), []]


def test_dns_gradient_flows_into_kept_items_only():
    context = context_for([[0]], [0], [0], SHARE)
    sampled = DnsSampler(count=40, kept=3)(context)
    (gradient,) = torch.autograd.grad(loss_of(context, sampled), sampled.vectors)
    assert torch.equal(gradient.abs().sum(dim=1) > 0, ~sampled.is_masked[0])


def test_dns_has_zero_log_q_and_encodes_the_pool():
    sampled = DnsSampler(count=40, kept=3)(step())
    assert sampled.log_q.tolist() == [0] * 40
    assert sampled.positive_log_q is None
    assert sampled.num_encoded == 40


def test_dns_all_seen_row_has_finite_loss():
    context = context_with_all_seen(SHARE)
    assert torch.isfinite(loss_of(context, DnsSampler(8, 4)(context)))


def test_dns_kept_above_count_is_rejected():
    with pytest.raises(ConfigError, match=r"kept \(9\) must be at most count \(8\)"):
        config_of({"name": "dns", "count": 8, "kept": 9})
