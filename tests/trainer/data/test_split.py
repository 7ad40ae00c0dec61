import numpy as np
import pytest

from tests.support.training_shops import interactions, items, write_shop
from trainer.data.dataset import TEST, TRAIN, VALID, Interactions, load_dataset
from trainer.data.interactions import ItemLists, build_cases, build_histories


def taken_by(**words):
    """Interactions columns of users with the letters of a word as items, in order."""
    pairs = [(user, item) for user, word in words.items() for item in word]
    return {
        "user_id": [user for user, _ in pairs],
        "item_id": [item for _, item in pairs],
        "timestamp": list(range(len(pairs))),
    }


def words_of(data, part):
    """Concatenated item ids of each user in a part."""
    histories = build_histories(data.interactions, (part,), len(data.user_ids))
    return [
        "".join(data.item_ids[row] for row in histories.get(user))
        for user in range(len(data.user_ids))
    ]


def letters(word):
    return items(item_id=list(word), title=None)


@pytest.fixture
def plain(tmp_path):
    """Writer of a dataset folder over the letters of `word`, with constant features."""

    def write(taken, word="abcdefghij"):
        return write_shop(tmp_path, taken, letters(word), visual=np.ones((len(word), 2)))

    return write


# ---------------------------------------------------------------- splits


def test_auto_split_uses_the_split_column_if_present(plain):
    taken = taken_by(ann="abcd", bob="dcb")
    taken["split"] = ["test", "train", "valid", "train", "train", "train", "train"]
    data = load_dataset(plain(taken))
    assert data.split == "source split column"
    assert [words_of(data, part) for part in (TRAIN, VALID, TEST)] == [
        ["bd", "dcb"],
        ["c", ""],
        ["a", ""],
    ]


def test_unused_split_column_is_noted(plain):
    taken = taken_by(ann="abcd")
    taken["split"] = ["test", "train", "valid", "train"]
    data = load_dataset(plain(taken), "leave-last-two")
    assert words_of(data, TEST) == ["d"]
    assert "the split column is not used" in data.notes


def test_leave_last_two_keeps_short_users_in_train(plain):
    data = load_dataset(plain(taken_by(ann="abcd", bob="ab", cat="c", dan="cba")))
    assert words_of(data, TRAIN) == ["ab", "ab", "c", "c"]
    assert words_of(data, VALID) == ["c", "", "", "b"]
    assert words_of(data, TEST) == ["d", "", "", "a"]
    assert "users with fewer than 3 interactions, all in train: 2" in data.notes


def test_leave_last_two_uses_seq_pos_without_timestamp(plain):
    taken = taken_by(ann="abcd")
    taken["seq_pos"] = taken.pop("timestamp")[::-1]
    data = load_dataset(plain(taken), "leave-last-two")
    assert (words_of(data, VALID), words_of(data, TEST)) == (["b"], ["a"])
    assert data.split == "leave last two out, by seq_pos"


def test_timestamp_takes_precedence_over_seq_pos(plain):
    taken = taken_by(ann="abcd")
    taken["seq_pos"] = taken["timestamp"][::-1]
    data = load_dataset(plain(taken))
    assert words_of(data, TEST) == ["d"]
    assert "ordered by timestamp, seq_pos not used" in data.notes


def test_last_fifth_orders_by_timestamp_then_file_row(plain):
    taken = taken_by(ann="abcdefgh", bob="abcdefgh", cat="abcd")
    taken["timestamp"] = [0] * 20  # all ties: the last two rows of the file are test
    taken["timestamp"][2] = 1  # except that this row is later
    data = load_dataset(plain(taken), "last-fifth")
    assert words_of(data, TEST) == ["c", "", "d"]
    assert words_of(data, VALID) == ["", "", "bc"]
    assert data.split == "last fifth of all interactions, by timestamp"


def test_last_fifth_breaks_ties_across_users_by_file_row(plain):
    users = ["ann", "bob"] * 10
    word = [letter for letter in "abcdefghij" for _ in range(2)]
    taken = {"user_id": users, "item_id": word, "timestamp": [0] * 20}
    data = load_dataset(plain(taken), "last-fifth")
    assert (words_of(data, VALID), words_of(data, TEST)) == (["i", "i"], ["j", "j"])


def test_random_split_holds_out_two_per_user_by_seed(plain):
    folder = plain(taken_by(ann="abcdefghij", bob="jihgfedcba", cat="ab"))
    first, again, other = (load_dataset(folder, "random", seed) for seed in (1, 1, 2))
    for data in (first, other):
        assert [len(word) for word in words_of(data, TRAIN)] == [8, 8, 2]
        assert [len(word) for word in words_of(data, VALID)] == [1, 1, 0]
        assert [len(word) for word in words_of(data, TEST)] == [1, 1, 0]
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_cold_split_holds_out_items_entirely(plain):
    data = load_dataset(plain(taken_by(ann="abcdefghij", bob="jihgfedcba", cat="abcde")), "cold")
    (cold,) = set("".join(words_of(data, TEST)))  # 5 % of ten items, at least one
    rest = [word.replace(cold, "") for word in ("abcdefghij", "jihgfedcba", "abcde")]
    assert words_of(data, TRAIN) == [word[:-1] for word in rest]
    assert words_of(data, VALID) == [word[-1] for word in rest]


def test_cold_split_keeps_users_with_single_other_item_in_train(plain):
    taken = taken_by(ann="ab", bob="ab", cat="abcdefghijklmnopqrst", dan="a")
    data = load_dataset(plain(taken, "abcdefghijklmnopqrst"), "cold", seed=3)
    (cold,) = set("".join(words_of(data, TEST)))
    short = 1 if cold not in "ab" else 0
    assert [len(word) for word in words_of(data, VALID)] == [short, short, 1, 0]


def test_cold_split_supports_unordered_data(plain):
    taken = taken_by(ann="abcdefghij", bob="jihgfedcba")
    del taken["timestamp"]
    data = load_dataset(plain(taken), "cold")
    assert [len(word) for word in words_of(data, VALID)] == [1, 1]
    assert "seeded random other interaction" in data.split


def test_unknown_split_raises_value_error(tmp_path):
    with pytest.raises(ValueError, match=r"split must be one of .* not 'half'"):
        load_dataset(write_shop(tmp_path), "half")


def test_held_out_users_without_history_are_counted(plain):
    taken = taken_by(ann="abcd", bob="ab")
    taken["split"] = ["train", "train", "valid", "test", "test", "test"]
    data = load_dataset(plain(taken))
    assert "users in test without an earlier part, not evaluated: 1" in data.notes


# ---------------------------------------------------------------- histories and cases


@pytest.fixture
def three_users():
    """User 0 has all parts, user 1 only train, user 2 is absent, user 3 has no train."""
    return Interactions(
        user_rows=np.array([0, 0, 0, 0, 1, 3, 3], dtype=np.int32),
        item_rows=np.array([5, 1, 4, 2, 9, 7, 8], dtype=np.int32),
        parts=np.array([TRAIN, TRAIN, VALID, TEST, TRAIN, VALID, TEST], dtype=np.int8),
        is_ordered=True,
    )


def test_build_histories_keeps_order_and_empty_users(three_users):
    train = build_histories(three_users, (TRAIN,), num_users=5)
    assert [train.get(user).tolist() for user in range(5)] == [[5, 1], [9], [], [], []]
    assert train.offsets.tolist() == [0, 2, 3, 3, 3, 3]
    full = build_histories(three_users, {TRAIN, VALID, TEST}, num_users=5)
    assert full.item_rows.tolist() == three_users.item_rows.tolist()


def test_build_cases_valid_uses_train_histories(three_users):
    cases = build_cases(three_users, VALID, num_users=4)
    assert cases.user_rows.tolist() == [0]
    assert cases.histories.get(0).tolist() == [5, 1]
    assert cases.targets.get(0).tolist() == [4]
    assert cases.without_history_count == 1


def test_build_cases_test_uses_train_and_valid_histories(three_users):
    cases = build_cases(three_users, TEST, num_users=4)
    assert cases.user_rows.tolist() == [0, 3]
    assert [cases.histories.get(case).tolist() for case in (0, 1)] == [[5, 1, 4], [7]]
    assert [cases.targets.get(case).tolist() for case in (0, 1)] == [[2], [8]]
    assert cases.without_history_count == 0


def test_build_cases_rejects_train(three_users):
    with pytest.raises(ValueError, match=r"part must be VALID \(1\) or TEST \(2\), not 0"):
        build_cases(three_users, TRAIN, num_users=4)


@pytest.mark.parametrize("offsets", [[1, 2], [0, 3], [0, 2, 1, 2]])
def test_item_lists_reject_invalid_offsets(offsets):
    with pytest.raises(ValueError, match="offsets must"):
        ItemLists(np.array(offsets, dtype=np.int64), np.array([0, 1], dtype=np.int32))


def test_interactions_without_timestamps_are_unordered(tmp_path):
    data = load_dataset(write_shop(tmp_path, interactions(timestamp=None)))
    assert not data.interactions.is_ordered
