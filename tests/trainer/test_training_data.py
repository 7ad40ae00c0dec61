from dataclasses import replace

import numpy as np
import pytest

from tests.support.training_data import as_histories, tiny_config
from trainer import training_data
from trainer.data.interactions import ItemLists
from trainer.training_data import (
    BatchLoader,
    build_training_data,
    sample_validation_cases,
    shuffle_histories,
)

# user 1 has one item, user 2 none; the tens digit of an item's row is its user
TAKEN = [[0, 1, 2, 3, 4], [10], [], [20, 21], [30, 31, 32]]


def batches(is_ordered, size=64, length=3, seed=0, taken=TAKEN):
    return BatchLoader(as_histories(taken), is_ordered, size, length, seed)


def examples(made, epoch=0):
    """(user, target, history newest first) of each target of an epoch."""
    return [
        (int(user), int(target), rows[mask].tolist())
        for batch in made.epoch(epoch)
        for user, target, rows, mask in zip(
            batch.user_rows, batch.positive_rows, batch.history_rows, batch.mask, strict=True
        )
    ]


def test_ordered_history_is_previous_items_newest_first():
    assert sorted(examples(batches(is_ordered=True))) == [
        (0, 1, [0]),
        (0, 2, [1, 0]),
        (0, 3, [2, 1, 0]),
        (0, 4, [3, 2, 1]),
        (3, 21, [20]),
        (4, 31, [30]),
        (4, 32, [31, 30]),
    ]


def test_batch_mask_is_left_aligned_with_row_0_padding():
    for batch in batches(is_ordered=True, size=7).epoch(0):
        assert (np.sort(~batch.mask, axis=1) == ~batch.mask).all()
        assert (batch.history_rows[~batch.mask] == 0).all()


def test_unordered_history_excludes_target_and_duplicates():
    taken = [list(range(9)), list(range(20, 26))]
    for epoch in range(20):
        for user, target, history in examples(batches(False, length=4, taken=taken), epoch):
            assert target not in history
            assert len(set(history)) == len(history) == 4
            assert set(history) <= set(taken[user])


def test_unordered_short_history_is_all_other_items():
    epoch = examples(batches(is_ordered=False, length=10))
    assert sorted(target for _, target, _ in epoch) == [0, 1, 2, 3, 4, 20, 21, 30, 31, 32]
    for user, target, history in epoch:
        assert sorted([*history, target]) == TAKEN[user]


def test_unordered_history_samples_items_uniformly():
    made = batches(False, size=10, length=2, taken=[list(range(6))])
    counts = np.zeros((6, 6))
    for epoch in range(400):
        for _, target, history in examples(made, epoch):
            counts[target, history] += 1
    others = counts[~np.eye(6, dtype=bool)]
    assert np.diag(counts).sum() == 0
    assert others == pytest.approx(400 * 2 / 5, abs=60)  # 5 standard deviations are 49


@pytest.mark.parametrize("is_ordered", [True, False])
def test_epoch_yields_every_target_once_in_new_order(is_ordered):
    made = batches(is_ordered, size=3, taken=[list(range(39)), [39, 40]])
    targets = made.histories.item_rows[made.target_positions]
    first, second = ([target for _, target, _ in examples(made, epoch)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == sorted(targets)
    assert first != second


def test_shuffle_histories_does_not_depend_on_block_size():
    histories = as_histories([list(range(9)), *TAKEN])
    whole, blocks = (
        shuffle_histories(histories, np.random.default_rng(0), size) for size in (100, 2)
    )
    assert (whole.item_rows == blocks.item_rows).all()
    assert (whole.item_rows != histories.item_rows).any()
    for user in range(len(TAKEN) + 1):
        assert sorted(blocks.get(user)) == sorted(histories.get(user))


@pytest.mark.parametrize("is_ordered", [True, False])
def test_epoch_of_memory_mapped_histories_is_the_same(is_ordered, tmp_path):
    made = batches(is_ordered)
    np.save(tmp_path / "rows.npy", made.histories.item_rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    loader = replace(made, histories=ItemLists(made.histories.offsets, mapped))
    assert examples(loader) == examples(made)


def test_target_positions_are_of_a_small_type():
    made = batches(is_ordered=True, taken=[range(100_000)])
    assert made.target_positions.dtype == np.int32
    assert made.target_positions is made.target_positions


def test_epoch_omits_last_batch_of_single_target():
    assert batches(is_ordered=True, size=3).batches_per_epoch() == 2
    for size, lengths in ((3, [3, 3]), (5, [5, 2])):
        loader = batches(is_ordered=True, size=size)
        assert [len(batch.user_rows) for batch in loader.epoch(0)] == lengths


@pytest.mark.parametrize("is_ordered", [True, False])
def test_epoch_resumed_from_batch_yields_same_batches(is_ordered):
    made = batches(is_ordered, size=2)
    for whole, resumed in zip(list(made.epoch(3))[2:], made.epoch(3, first=2), strict=True):
        for name in ("user_rows", "positive_rows", "history_rows", "mask"):
            assert (getattr(whole, name) == getattr(resumed, name)).all()


def test_epoch_order_depends_on_seed():
    first, again, other = (batches(True, taken=[range(30)], seed=seed) for seed in (0, 0, 1))
    assert examples(first) == examples(again)
    assert examples(first) != examples(other)


@pytest.mark.parametrize("users_at_once", [2, 100])
@pytest.mark.parametrize("is_ordered", [True, False])
def test_appearances_count_examples_with_each_item(monkeypatch, is_ordered, users_at_once):
    monkeypatch.setattr(training_data, "SHUFFLED_USERS", users_at_once)
    made = batches(is_ordered)
    rows = [row for _, target, history in examples(made) for row in (target, *history)]
    assert made.appearances(33).tolist() == np.bincount(rows, minlength=33).tolist()


@pytest.mark.parametrize("is_ordered", [True, False])
def test_in_batch_probability_is_the_share_of_batches(world_data, is_ordered):
    interactions = replace(world_data.interactions, is_ordered=is_ordered)
    config = tiny_config(batch_size=16)
    data = build_training_data(replace(world_data, interactions=interactions), config)
    num_items, counts, batch_count = len(world_data.item_ids), 0, 0
    for epoch in range(20):
        for batch in data.loader.epoch(epoch):
            if len(batch.user_rows) == 16:
                rows = np.concatenate([batch.positive_rows, batch.history_rows[batch.mask]])
                counts += np.bincount(np.unique(rows), minlength=num_items)
                batch_count += 1
    probability = data.in_batch_probability(16, np.arange(num_items, dtype=np.int32))
    errors = np.sqrt(probability * (1 - probability) / batch_count)
    assert batch_count > 500
    assert 0.01 < probability.min() < probability.max() < 0.99
    assert np.abs(counts / batch_count - probability).max() < (5 * errors).max()
    assert (counts / batch_count).mean() == pytest.approx(probability.mean(), rel=0.02)


def test_target_counts_exclude_first_and_single_items():
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


@pytest.mark.parametrize(("limit", "expected"), [(100_000, 120), (8_000, 50), (160, 20)])
def test_large_catalogue_limits_validation_cases(world_data, monkeypatch, limit, expected):
    monkeypatch.setattr(training_data, "MAX_VALIDATION_SCORES", limit)
    monkeypatch.setattr(training_data, "MIN_VALIDATION_CASES", 20)
    assert len(world_data.item_ids) == 160
    assert len(sample_validation_cases(world_data, tiny_config()).user_rows) == expected
