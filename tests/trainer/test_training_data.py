import numpy as np
import pytest

from tests.support.training_data import as_histories
from trainer.training_data import BatchLoader

# user 1 took one thing, user 2 nothing; an item's row tells whose it is
TAKEN = [[0, 1, 2, 3, 4], [10], [], [20, 21], [30, 31, 32]]


def batches(is_ordered, size=64, length=3, seed=0, taken=TAKEN):
    return BatchLoader(as_histories(taken), is_ordered, size, length, seed)


def examples(made, epoch=0):
    """(user, target, history newest first) of every target of an epoch."""
    return [
        (int(user), int(target), rows[mask].tolist())
        for batch in made.epoch(epoch)
        for user, target, rows, mask in zip(
            batch.user_rows,
            batch.positive_rows,
            batch.history_rows,
            batch.mask,
            strict=True,
        )
    ]


def test_an_ordered_history_is_what_came_before_newest_first_and_at_most_the_length():
    assert sorted(examples(batches(is_ordered=True))) == [
        (0, 1, [0]),
        (0, 2, [1, 0]),
        (0, 3, [2, 1, 0]),
        (0, 4, [3, 2, 1]),
        (3, 21, [20]),
        (4, 31, [30]),
        (4, 32, [31, 30]),
    ]


def test_the_mask_fills_from_the_left_and_hides_row_0():
    for batch in batches(is_ordered=True, size=7).epoch(0):
        assert (np.sort(~batch.mask, axis=1) == ~batch.mask).all()
        assert (batch.history_rows[~batch.mask] == 0).all()


def test_an_unordered_history_never_holds_the_target_nor_anything_twice():
    taken = [list(range(9)), list(range(20, 26))]
    for epoch in range(20):
        for user, target, history in examples(batches(False, length=4, taken=taken), epoch):
            assert target not in history
            assert len(set(history)) == len(history) == 4
            assert set(history) <= set(taken[user])


def test_an_unordered_history_of_few_items_is_all_the_others():
    found = examples(batches(is_ordered=False, length=10))
    assert sorted(target for _, target, _ in found) == [0, 1, 2, 3, 4, 20, 21, 30, 31, 32]
    for user, target, history in found:
        assert sorted([*history, target]) == TAKEN[user]


def test_an_unordered_history_draws_each_other_item_alike():
    made = batches(False, size=10, length=2, taken=[list(range(6))])
    drawn = np.zeros((6, 6))
    for epoch in range(400):
        for _, target, history in examples(made, epoch):
            drawn[target, history] += 1
    others = drawn[~np.eye(6, dtype=bool)]
    assert np.diag(drawn).sum() == 0
    assert others == pytest.approx(400 * 2 / 5, abs=60)  # 5 standard deviations are 49


@pytest.mark.parametrize("is_ordered", [True, False])
def test_an_epoch_takes_every_target_once_in_an_order_of_its_own(is_ordered):
    made = batches(is_ordered, size=3, taken=[list(range(39)), [39, 40]])
    targets = made.histories.item_rows[made.target_positions()]
    first, second = ([one[1] for one in examples(made, epoch)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == sorted(targets)
    assert first != second


def test_a_last_batch_of_one_target_is_left_out():
    assert batches(is_ordered=True, size=3).batches_per_epoch() == 2
    assert [len(one.user_rows) for one in batches(is_ordered=True, size=3).epoch(0)] == [3, 3]
    assert [len(one.user_rows) for one in batches(is_ordered=True, size=5).epoch(0)] == [5, 2]


@pytest.mark.parametrize("is_ordered", [True, False])
def test_an_epoch_begun_in_its_middle_goes_on_as_it_would_have(is_ordered):
    made = batches(is_ordered, size=2)
    for whole, resumed in zip(list(made.epoch(3))[2:], made.epoch(3, first=2), strict=True):
        for name in ("user_rows", "positive_rows", "history_rows", "mask"):
            assert (getattr(whole, name) == getattr(resumed, name)).all()


def test_another_seed_takes_another_order_and_the_same_seed_the_same():
    one, again, other = (batches(True, taken=[range(30)], seed=seed) for seed in (0, 0, 1))
    assert examples(one) == examples(again)
    assert examples(one) != examples(other)


def test_target_counts_leave_out_first_items_and_lone_ones():
    counts = batches(is_ordered=True).target_counts(33)
    assert np.flatnonzero(counts).tolist() == [1, 2, 3, 4, 21, 31, 32]
    assert np.flatnonzero(batches(is_ordered=False).target_counts(33)).tolist() == [
        *range(5),
        20,
        21,
        30,
        31,
        32,
    ]
