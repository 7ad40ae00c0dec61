import pytest
import torch

from tests.support.sampler_contexts import context_for, knows_all, loss_of
from trainer.samplers.literature import PositiveMixingSampler, select_candidates

ITEMS = 30
SHARE = [1 / ITEMS] * ITEMS
TAKEN = [list(range(20)), [25], [26, 27]]


def step(**changes):
    return context_for(TAKEN, [0, 1, 2], [0, 25, 26], SHARE, **changes)


def test_the_highest_scoring_candidate_of_each_group_is_chosen():
    groups = torch.tensor([[[0, 1], [2, 2]], [[3, 0], [1, 2]]])
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.0], [0.1, 0.9, 0.5, -torch.inf]])
    assert select_candidates(groups, scores).tolist() == [[1, 2], [0, 1]]


def test_every_row_has_its_own_unit_vectors():
    drawn = PositiveMixingSampler(count=50, candidates=4, kept=6)(step())
    assert drawn.vectors.shape == (3, 6, 8)
    assert drawn.vectors.norm(dim=-1).flatten().tolist() == pytest.approx([1] * 18)
    assert drawn.rows is None


def test_a_negative_lies_between_the_positive_and_an_item_that_is_not_known():
    # each item has an axis to itself, so that a vector tells its parts
    context = context_for(TAKEN, [0, 1, 2], [0, 25, 26], SHARE, table=torch.eye(ITEMS))
    context.queries.data = torch.ones(3, ITEMS)
    drawn = PositiveMixingSampler(count=50, candidates=4, kept=6)(context)
    for place, (own, taken) in enumerate(zip((0, 25, 26), TAKEN, strict=True)):
        for vector in drawn.vectors[place][~drawn.is_masked[place]]:
            others = [row for row in vector.nonzero().flatten().tolist() if row != own]
            assert len(others) == 1
            assert others[0] not in taken
            assert (vector >= 0).all()


def test_a_group_of_known_positives_alone_is_masked_and_its_loss_finite():
    context = knows_all(SHARE)
    drawn = PositiveMixingSampler(count=12, candidates=3, kept=4)(context)
    assert drawn.is_masked[0].all()
    assert not drawn.is_masked[1].all()
    assert torch.isfinite(loss_of(context, drawn))


def test_a_known_positive_never_wins_where_another_candidate_is_left():
    context = context_for([[row for row in range(ITEMS) if row != 5]], [0], [0], SHARE)
    assert not PositiveMixingSampler(count=200, candidates=190, kept=4)(context).is_masked.any()


def test_gradient_flows_into_the_positive_and_into_the_candidate():
    table = torch.eye(ITEMS).requires_grad_()
    context = context_for([[0]], [0], [0], SHARE, table=table, queries=torch.ones(1, ITEMS))
    PositiveMixingSampler(20, 2, 1)(context).vectors[0, 0, 0].backward()
    touched = table.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched[0] == 0
    assert len(touched) == 2


def test_nothing_is_corrected_and_the_whole_pool_is_paid_for():
    drawn = PositiveMixingSampler(count=50, candidates=4, kept=6)(step())
    assert not drawn.log_q.any()
    assert drawn.positive_log_q is None
    assert drawn.num_encoded == 50
