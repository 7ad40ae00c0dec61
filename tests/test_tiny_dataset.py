import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.tiny_dataset import write_tiny_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_world(folder)
    return folder


def events(folder):
    table = pq.read_table(folder / "interactions.parquet").to_pylist()
    return [(int(row["user_id"][5:]), int(row["item_id"][5:]), row["timestamp"]) for row in table]


def test_tiny_world_users_have_items_of_own_parity(folder):
    assert all(user % 2 == item % 2 for user, item, _ in events(folder))


def test_tiny_world_users_have_8_to_12_unique_items(folder):
    for user in range(60):
        own = [(item, time) for owner, item, time in events(folder) if owner == user]
        items, timestamps = zip(*own, strict=True)
        assert 8 <= len(items) <= 12
        assert len(set(items)) == len(items)
        assert all(np.diff(timestamps) > 0)


def test_tiny_world_items_are_ordered_with_parity(folder):
    items = pq.read_table(folder / "items.parquet").to_pydict()
    assert items["item_id"] == [f"item-{row}" for row in range(40)]
    assert items["parity"] == ["even", "odd"] * 20


@pytest.mark.parametrize(("name", "width", "missing"), [("visual", 8, 7), ("textual", 6, 12)])
def test_tiny_world_features_encode_parity(folder, name, width, missing):
    values = np.load(folder / f"features_{name}.npy")
    assert (values.dtype, values.shape) == (np.float32, (40, width))
    assert np.isnan(values[missing]).all()
    present = np.delete(np.arange(40), missing)
    assert (values[present, :2].argmax(axis=1) == present % 2).all()


def test_tiny_world_is_determined_by_seed(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_tiny_world(tmp_path / name, users=10, items=30, seed=seed)
    first, again, other = (events(tmp_path / name) for name in ("first", "again", "other"))
    path = "features_visual.npy"
    assert first == again
    assert (tmp_path / "first" / path).read_bytes() == (tmp_path / "again" / path).read_bytes()
    assert first != other


def test_tiny_world_rejects_too_few_items(tmp_path):
    with pytest.raises(ValueError, match="23 items: expected at least 24"):
        write_tiny_world(tmp_path, items=23)
