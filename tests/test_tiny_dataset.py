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


def test_users_take_only_items_of_their_own_parity(folder):
    assert all(user % 2 == item % 2 for user, item, _ in events(folder))


def test_every_user_takes_8_to_12_different_items_one_after_the_other(folder):
    for user in range(60):
        own = [(item, moment) for one, item, moment in events(folder) if one == user]
        items, moments = zip(*own, strict=True)
        assert 8 <= len(items) <= 12
        assert len(set(items)) == len(items)
        assert all(np.diff(moments) > 0)


def test_items_stand_in_order_with_their_parity(folder):
    items = pq.read_table(folder / "items.parquet").to_pydict()
    assert items["item_id"] == [f"item-{row}" for row in range(40)]
    assert items["parity"] == ["even", "odd"] * 20


@pytest.mark.parametrize(("name", "width", "missing"), [("visual", 8, 7), ("textual", 6, 12)])
def test_the_parity_can_be_read_off_every_row_but_the_missing_one(folder, name, width, missing):
    values = np.load(folder / f"features_{name}.npy")
    assert (values.dtype, values.shape) == (np.float32, (40, width))
    assert np.isnan(values[missing]).all()
    present = np.delete(np.arange(40), missing)
    assert (values[present, :2].argmax(axis=1) == present % 2).all()


def test_the_same_seed_writes_the_same_world_and_another_a_different_one(tmp_path):
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        write_tiny_world(tmp_path / name, users=10, items=30, seed=seed)
    one, again, other = (events(tmp_path / name) for name in ("one", "again", "other"))
    features = [(tmp_path / name / "features_visual.npy").read_bytes() for name in ("one", "again")]
    assert one == again
    assert features[0] == features[1]
    assert one != other


def test_too_few_items_for_the_keenest_user_are_refused(tmp_path):
    with pytest.raises(ValueError, match="23 items: at least 24"):
        write_tiny_world(tmp_path, items=23)
