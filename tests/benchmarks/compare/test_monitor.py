import pytest
import torch

from benchmarks.compare.monitor import SamplerMonitor
from tests.support.training_data import as_histories, context_for
from trainer.samplers.base import SampledNegatives
from trainer.seen_items import build_seen_items

# user 0 knows item 0 and holds out 2; user 1 knows 1 and holds out 3; 6 items
TAKEN, HELD_OUT = [[0], [1]], [[2], [3]]


def monitored(sampler, every=1, steps_per_epoch=2):
    known = build_seen_items(as_histories(HELD_OUT), 6, torch.device("cpu"))
    return SamplerMonitor(sampler, known, steps_per_epoch, every)


def context(step=0):
    return context_for(TAKEN, [0, 1], [0, 1], 6, seed=step)


def shared(*rows):
    """Draws these rows for all, known ones masked."""

    def sample(context):
        chosen = torch.tensor(rows)
        masked = context.is_seen(chosen)
        vectors = context.encode(chosen)
        return SampledNegatives(vectors, torch.zeros(len(rows)), masked, rows=chosen, num_encoded=9)

    return sample


def test_held_out_positives_are_counted_among_the_unmasked_draws():
    sampler = monitored(shared(0, 2, 3, 4))
    sampler(context())
    # user 0: 0 is known; of 2, 3, 4 the 2 is held out. user 1: of 0, 2, 3, 4 the 3 is.
    figures = sampler.figures()
    assert figures["false_negative_share"] == pytest.approx(2 / 7)
    assert figures["encoded_per_step"] == 9
    assert figures["health_of"] == "drawn"


def test_the_score_is_the_mean_over_the_unmasked_draws():
    step = context()
    sampler = monitored(shared(0, 4))
    drawn = sampler(step)
    scores = step.queries @ drawn.vectors.T
    wanted = (scores[0, 1] + scores[1, 0] + scores[1, 1]) / 3  # user 0 knows item 0
    assert sampler.figures()["negative_score"] == pytest.approx(float(wanted), abs=1e-6)


def test_distinct_items_are_counted_epoch_by_epoch():
    rows = iter([(2, 2, 3), (3, 4), (5, 5), (5,)])
    sampler = monitored(lambda context: shared(*next(rows))(context))
    for step in range(4):
        sampler(context(step))
    assert sampler.figures()["distinct_per_epoch"] == 2  # 2, 3, 4, then 5 alone


def test_an_item_masked_for_everyone_was_nobodys_negative():
    def sample(context):
        rows = torch.tensor([2, 3])
        masked = torch.tensor([[True, False], [True, False]])
        return SampledNegatives(context.encode(rows), torch.zeros(2), masked, rows=rows)

    sampler = monitored(sample)
    sampler(context())
    assert sampler.figures()["distinct_per_epoch"] == 1


def test_rows_drawn_for_each_user_are_looked_at_as_theirs():
    def sample(context):
        rows = torch.tensor([[2, 4], [2, 5]])
        masked = torch.zeros(2, 2, dtype=torch.bool)
        vectors = context.encode(rows.flatten()).view(2, 2, -1)
        return SampledNegatives(vectors, torch.zeros(2, 2), masked, rows=rows, num_encoded=4)

    sampler = monitored(sample)
    sampler(context())
    assert sampler.figures()["false_negative_share"] == 1 / 4  # 2 is held out for user 0 alone
    assert sampler.figures()["distinct_per_epoch"] == 3


def test_for_virtual_negatives_the_encoded_items_stand():
    def sample(context):
        vectors = context.encode(torch.tensor([0, 2, 2]))
        mixed = vectors.mean(dim=0, keepdim=True)
        return SampledNegatives(mixed, torch.zeros(1), torch.zeros(2, 1, dtype=torch.bool))

    sampler = monitored(sample)
    sampler(context())
    figures = sampler.figures()
    assert figures["health_of"] == "encoded"
    assert figures["false_negative_share"] == 1 / 3  # user 0: 2 (0 is known); user 1: 0 and 2
    assert figures["distinct_per_epoch"] == 2


def test_where_nothing_is_encoded_and_all_is_virtual_there_is_nothing_to_count():
    def sample(context):
        return SampledNegatives(context.positives, torch.zeros(2), torch.eye(2, dtype=torch.bool))

    sampler = monitored(sample)
    sampler(context())
    figures = sampler.figures()
    assert figures["false_negative_share"] is None
    assert figures["distinct_per_epoch"] is None
    assert figures["health_of"] is None
    assert figures["negative_score"] is not None


def test_only_some_steps_are_looked_at_closely_but_all_are_counted():
    sampler = monitored(shared(2, 4), every=2)
    sampler(context(step=1))
    assert sampler.figures()["false_negative_share"] is None
    assert sampler.figures()["distinct_per_epoch"] == 2
    assert sampler.figures()["encoded_per_step"] == 9


def test_being_watched_changes_nothing_of_what_is_drawn():
    def sample(context):
        rows = torch.randint(6, (4,), generator=context.rng)
        masked = context.is_seen(rows)
        return SampledNegatives(context.encode(rows), torch.zeros(4), masked, rows=rows)

    plain, seen = sample(context()), monitored(sample)(context())
    assert torch.equal(plain.rows, seen.rows)
    assert torch.equal(plain.vectors, seen.vectors)


def test_cpu_time_is_counted_from_draw_to_draw_within_an_epoch():
    sampler = monitored(shared(2), steps_per_epoch=2)
    sampler(context(step=0))
    assert sampler.figures()["cpu_seconds_per_step"] is None  # nothing to count from
    sampler(context(step=1))
    first = sampler.figures()["cpu_seconds_per_step"]
    assert 0 < first < 1
    sampler(context(step=2))  # the next epoch: validation lay between
    assert sampler.figures()["cpu_seconds_per_step"] == first
