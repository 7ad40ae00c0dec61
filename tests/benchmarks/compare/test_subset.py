import numpy as np
import pytest

from benchmarks.compare.subset import Subset, load_subset, sample_users
from index.errors import DatasetError
from tests.support.tiny_dataset import write_tiny_world
from trainer.data.dataset import load_dataset


def interactions_of(data):
    """The (item, part) pairs of each user id."""
    rows, items, parts = (
        data.interactions.user_rows,
        data.interactions.item_rows,
        data.interactions.parts,
    )
    return {
        user: list(zip(items[rows == row], parts[rows == row], strict=True))
        for row, user in enumerate(data.user_ids)
    }


def test_sample_users_keeps_whole_users_and_all_items(world_data):
    subset = sample_users(world_data, 500, seed=0)
    everything, some = interactions_of(world_data), interactions_of(subset)
    assert 488 < len(subset.interactions.parts) <= 500  # a user has at most 12
    assert all(some[user] == everything[user] for user in some)
    assert subset.item_ids == world_data.item_ids
    assert subset.fingerprint != world_data.fingerprint
    assert (
        f"reduced to {len(some)} of 120 users, {len(subset.interactions.parts)} interactions"
        in (subset.notes)
    )


def test_sample_users_depends_on_the_seed(world_data):
    samples = [sample_users(world_data, 500, seed).user_ids for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]


def test_sample_users_with_a_high_limit_keeps_all(world_data):
    assert sample_users(world_data, 10**6, seed=0) is world_data


def test_load_subset_with_too_few_cases_is_rejected(tmp_path):
    write_tiny_world(tmp_path, users=199)
    with pytest.raises(DatasetError, match="199 cases in test, expected at least 200") as caught:
        load_subset(Subset(tmp_path, None, "auto", 0))
    assert len(caught.value.faults) == 2


def test_load_subset_splits_by_the_study_seed(tmp_path):
    write_tiny_world(tmp_path, users=220)
    data = load_subset(Subset(tmp_path, None, "random", 5))
    same = load_dataset(tmp_path, "random", 5)
    np.testing.assert_array_equal(data.interactions.parts, same.interactions.parts)
