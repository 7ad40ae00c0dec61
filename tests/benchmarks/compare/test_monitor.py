import pytest
import torch

from benchmarks.compare.monitor import SamplerMonitor
from tests.support.training_data import as_histories, context_for
from trainer.samplers.base import SampledNegatives
from trainer.seen_items import build_seen_items

# user 0 has seen item 0, held out 2; user 1 has seen 1, held out 3; 6 items
SEEN, HELD_OUT = [[0], [1]], [[2], [3]]


def monitored(sampler, every=1, steps_per_epoch=2):
    known = build_seen_items(as_histories(HELD_OUT), 6, torch.device("cpu"))
    return SamplerMonitor(sampler, known, steps_per_epoch, every)


def context(step=0):
    return context_for(SEEN, [0, 1], [0, 1], 6, seed=step)


def shared(*rows):
    """Sampler of these rows for all users, seen items masked."""

    def sample(context):
        item_rows = torch.tensor(rows)
        masked = context.is_seen(item_rows)
        vectors = context.encode(item_rows)
        return SampledNegatives(
            vectors, torch.zeros(len(rows)), masked, rows=item_rows, num_encoded=9
        )

    return sample


def test_monitor_counts_unmasked_held_out_positives():
    sampler = monitored(shared(0, 2, 3, 4))
    sampler(context())
    # user 0: 0 is seen; of 2, 3, 4 the 2 is held out. user 1: of 0, 2, 3, 4 the 3 is.
    figures = sampler.figures()
    assert figures["false_negative_share"] == pytest.approx(2 / 7)
    assert figures["encoded_per_step"] == 9
    assert figures["health_of"] == "sampled"


def test_monitor_score_is_the_mean_of_unmasked_negatives():
    step = context()
    sampler = monitored(shared(0, 4))
    sampled = sampler(step)
    scores = step.queries @ sampled.vectors.T
    expected = (scores[0, 1] + scores[1, 0] + scores[1, 1]) / 3  # user 0 has seen item 0
    assert sampler.figures()["negative_score"] == pytest.approx(float(expected), abs=1e-6)


def test_monitor_counts_distinct_items_per_epoch():
    rows = iter([(2, 2, 3), (3, 4), (5, 5), (5,)])
    sampler = monitored(lambda context: shared(*next(rows))(context))
    for step in range(4):
        sampler(context(step))
    assert sampler.figures()["distinct_per_epoch"] == 2  # 2, 3, 4, then 5 alone


def test_monitor_ignores_items_masked_for_all_users():
    def sample(context):
        rows = torch.tensor([2, 3])
        masked = torch.tensor([[True, False], [True, False]])
        return SampledNegatives(context.encode(rows), torch.zeros(2), masked, rows=rows)

    sampler = monitored(sample)
    sampler(context())
    assert sampler.figures()["distinct_per_epoch"] == 1


def test_monitor_counts_per_user_rows_by_user():
    def sample(context):
        rows = torch.tensor([[2, 4], [2, 5]])
        masked = torch.zeros(2, 2, dtype=torch.bool)
        vectors = context.encode(rows.flatten()).view(2, 2, -1)
        return SampledNegatives(vectors, torch.zeros(2, 2), masked, rows=rows, num_encoded=4)

    sampler = monitored(sample)
    sampler(context())
    assert sampler.figures()["false_negative_share"] == 1 / 4  # 2 is held out for user 0 alone
    assert sampler.figures()["distinct_per_epoch"] == 3


def test_monitor_counts_encoded_items_for_virtual_negatives():
    def sample(context):
        vectors = context.encode(torch.tensor([0, 2, 2]))
        mixed = vectors.mean(dim=0, keepdim=True)
        return SampledNegatives(mixed, torch.zeros(1), torch.zeros(2, 1, dtype=torch.bool))

    sampler = monitored(sample)
    sampler(context())
    figures = sampler.figures()
    assert figures["health_of"] == "encoded"
    assert figures["false_negative_share"] == 1 / 3  # user 0: 2 (0 is seen); user 1: 0 and 2
    assert figures["distinct_per_epoch"] == 2


def test_monitor_without_encoded_items_has_no_counts():
    def sample(context):
        return SampledNegatives(context.positives, torch.zeros(2), torch.eye(2, dtype=torch.bool))

    sampler = monitored(sample)
    sampler(context())
    figures = sampler.figures()
    assert figures["false_negative_share"] is None
    assert figures["distinct_per_epoch"] is None
    assert figures["health_of"] is None
    assert figures["negative_score"] is not None


def test_monitor_records_every_nth_step_counts_all():
    sampler = monitored(shared(2, 4), every=2)
    sampler(context(step=1))
    assert sampler.figures()["false_negative_share"] is None
    assert sampler.figures()["distinct_per_epoch"] == 2
    assert sampler.figures()["encoded_per_step"] == 9


def test_monitor_does_not_change_the_samples():
    def sample(context):
        rows = torch.randint(6, (4,), generator=context.rng)
        masked = context.is_seen(rows)
        return SampledNegatives(context.encode(rows), torch.zeros(4), masked, rows=rows)

    plain, observed = sample(context()), monitored(sample)(context())
    assert torch.equal(plain.rows, observed.rows)
    assert torch.equal(plain.vectors, observed.vectors)


def test_monitor_cpu_time_excludes_validation():
    sampler = monitored(shared(2), steps_per_epoch=2)
    sampler(context(step=0))
    assert sampler.figures()["cpu_seconds_per_step"] is None  # there is no earlier step
    sampler(context(step=1))
    first = sampler.figures()["cpu_seconds_per_step"]
    assert 0 < first < 1
    sampler(context(step=2))  # the next epoch: validation ran in between
    assert sampler.figures()["cpu_seconds_per_step"] == first
