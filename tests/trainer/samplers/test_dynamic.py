import pytest
import torch

from index.errors import ConfigError
from tests.support.sampler_contexts import config_of, context_for, knows_all, loss_of
from trainer.samplers.literature import DnsSampler

ITEMS = 30
SHARE = [1 / ITEMS] * ITEMS
TAKEN = [list(range(20)), [25], [26, 27]]


def step(number=0):
    return context_for(TAKEN, [0, 1, 2], [0, 25, 26], SHARE, step=number)


def test_each_row_keeps_its_highest_scoring_items_that_it_is_not_known_to_like():
    context = step()
    drawn = DnsSampler(count=60, kept=5)(context)
    scores = context.queries @ drawn.vectors.T
    for place, taken in enumerate(TAKEN):
        allowed = [at for at, row in enumerate(drawn.rows.tolist()) if row not in taken]
        best = sorted(scores[place, allowed].tolist(), reverse=True)[:5]
        kept = scores[place, ~drawn.is_masked[place]].tolist()
        assert sorted(kept, reverse=True) == best


def test_a_known_positive_is_never_kept_however_high_it_scores():
    context = context_for(TAKEN, [1], [25], SHARE, queries=step().encode(torch.tensor([25])))
    drawn = DnsSampler(count=100, kept=10)(context)
    assert (drawn.rows == 25).any()  # drawn, and nearest of all to this query
    assert not (~drawn.is_masked[0] & (drawn.rows == 25)).any()


def test_a_row_with_few_unknown_items_keeps_fewer_and_one_with_none_keeps_none():
    context = context_for([list(range(1, ITEMS)), list(range(ITEMS))], [0, 1], [1, 1], SHARE)
    drawn = DnsSampler(count=20, kept=15)(context)
    kept = [drawn.rows[~mask].tolist() for mask in drawn.is_masked]
    assert kept == [[0] * int((drawn.rows == 0).sum()), []]


def test_gradient_reaches_only_what_a_row_kept():
    context = context_for([[0]], [0], [0], SHARE)
    drawn = DnsSampler(count=40, kept=3)(context)
    (gradient,) = torch.autograd.grad(loss_of(context, drawn), drawn.vectors)
    assert torch.equal(gradient.abs().sum(dim=1) > 0, ~drawn.is_masked[0])


def test_nothing_is_corrected_and_the_whole_pool_is_paid_for():
    drawn = DnsSampler(count=40, kept=3)(step())
    assert drawn.log_q.tolist() == [0] * 40
    assert drawn.positive_log_q is None
    assert drawn.num_encoded == 40


def test_a_row_without_any_negative_gives_a_finite_loss():
    context = knows_all(SHARE)
    assert torch.isfinite(loss_of(context, DnsSampler(8, 4)(context)))


def test_keeping_more_than_is_drawn_stops_the_start():
    with pytest.raises(ConfigError, match=r"kept \(9\) must be at most count \(8\)"):
        config_of({"name": "dns", "count": 8, "kept": 9})
