import numpy as np
import pytest

from benchmarks.compare.subset import Subset, keep_some_users, load_subset
from index.errors import DatasetError
from tests.support.tiny_dataset import write_tiny_world
from trainer.data.dataset import load_dataset


def taken_of(data):
    """Each user's (item, part) pairs, by id."""
    rows, items, parts = (
        data.interactions.user_rows,
        data.interactions.item_rows,
        data.interactions.parts,
    )
    return {
        user: list(zip(items[rows == row], parts[rows == row], strict=True))
        for row, user in enumerate(data.user_ids)
    }


def test_a_cut_keeps_whole_users_their_parts_and_the_whole_catalogue(world_data):
    cut = keep_some_users(world_data, 500, seed=0)
    whole, some = taken_of(world_data), taken_of(cut)
    assert 488 < len(cut.interactions.parts) <= 500  # a user has at most 12
    assert all(some[user] == whole[user] for user in some)
    assert cut.item_ids == world_data.item_ids
    assert cut.fingerprint != world_data.fingerprint
    assert f"cut to {len(some)} of 120 users, {len(cut.interactions.parts)} interactions" in (
        cut.notes
    )


def test_a_seed_draws_the_same_users_and_another_seed_others(world_data):
    drawn = [keep_some_users(world_data, 500, seed).user_ids for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_limit_above_all_there_is_cuts_nothing(world_data):
    assert keep_some_users(world_data, 10**6, seed=0) is world_data


def test_data_with_too_few_cases_for_a_figure_is_refused(tmp_path):
    write_tiny_world(tmp_path, users=199)
    with pytest.raises(DatasetError, match="199 cases in test, expected at least 200") as caught:
        load_subset(Subset(tmp_path, None, "auto", 0))
    assert len(caught.value.faults) == 2


def test_the_split_does_not_change_with_a_runs_seed(tmp_path):
    write_tiny_world(tmp_path, users=220)
    data = load_subset(Subset(tmp_path, None, "random", 5))
    same = load_dataset(tmp_path, "random", 5)
    np.testing.assert_array_equal(data.interactions.parts, same.interactions.parts)
