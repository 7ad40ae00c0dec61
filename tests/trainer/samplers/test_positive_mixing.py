import pytest
import torch

from tests.support.sampler_contexts import context_for, context_with_all_seen, loss_of
from trainer.samplers.literature import PositiveMixingSampler, select_candidates

ITEMS = 30
SHARE = [1 / ITEMS] * ITEMS
HISTORIES = [list(range(20)), [25], [26, 27]]


def step(**changes):
    return context_for(HISTORIES, [0, 1, 2], [0, 25, 26], SHARE, **changes)


def test_select_candidates_takes_highest_score_per_group():
    groups = torch.tensor([[[0, 1], [2, 2]], [[3, 0], [1, 2]]])
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.0], [0.1, 0.9, 0.5, -torch.inf]])
    assert select_candidates(groups, scores).tolist() == [[1, 2], [0, 1]]


def test_positive_mixing_returns_unit_vectors_per_row():
    sampled = PositiveMixingSampler(count=50, candidates=4, kept=6)(step())
    assert sampled.vectors.shape == (3, 6, 8)
    assert sampled.vectors.norm(dim=-1).flatten().tolist() == pytest.approx([1] * 18)
    assert sampled.rows is None


def test_positive_mixing_mixes_positive_with_unseen_item():
    # each item has its own axis, so that the parts of a mixture are visible
    context = context_for(HISTORIES, [0, 1, 2], [0, 25, 26], SHARE, table=torch.eye(ITEMS))
    context.queries.data = torch.ones(3, ITEMS)
    sampled = PositiveMixingSampler(count=50, candidates=4, kept=6)(context)
    for index, (own, history) in enumerate(zip((0, 25, 26), HISTORIES, strict=True)):
        for vector in sampled.vectors[index][~sampled.is_masked[index]]:
            others = [row for row in vector.nonzero().flatten().tolist() if row != own]
            assert len(others) == 1
            assert others[0] not in history
            assert (vector >= 0).all()


def test_positive_mixing_masks_groups_of_seen_items():
    context = context_with_all_seen(SHARE)
    sampled = PositiveMixingSampler(count=12, candidates=3, kept=4)(context)
    assert sampled.is_masked[0].all()
    assert not sampled.is_masked[1].all()
    assert torch.isfinite(loss_of(context, sampled))


def test_positive_mixing_prefers_unseen_candidates():
    context = context_for([[row for row in range(ITEMS) if row != 5]], [0], [0], SHARE)
    assert not PositiveMixingSampler(count=200, candidates=190, kept=4)(context).is_masked.any()


def test_positive_mixing_gradient_flows_into_both_ends():
    table = torch.eye(ITEMS).requires_grad_()
    context = context_for([[0]], [0], [0], SHARE, table=table, queries=torch.ones(1, ITEMS))
    PositiveMixingSampler(20, 2, 1)(context).vectors[0, 0, 0].backward()
    touched = table.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched[0] == 0
    assert len(touched) == 2


def test_positive_mixing_has_zero_log_q_and_encodes_pool():
    sampled = PositiveMixingSampler(count=50, candidates=4, kept=6)(step())
    assert not sampled.log_q.any()
    assert sampled.positive_log_q is None
    assert sampled.num_encoded == 50
