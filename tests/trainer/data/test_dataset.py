import hashlib
import re

import numpy as np
import pyarrow as pa
import pytest

from tests.support.training_shops import ITEMS, USERS, VISUAL, interactions, items, write_shop
from trainer.data.dataset import TEST, TRAIN, VALID, Dataset, Interactions, load_dataset


def test_load_dataset_reads_valid_folder(tmp_path):
    data = load_dataset(write_shop(tmp_path))
    assert data.item_ids == ["a", "b", "c", "d"]
    assert data.user_ids == ["ann", "bob"]
    assert data.interactions.user_rows.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert data.interactions.item_rows.tolist() == [0, 1, 2, 3, 3, 2, 1]
    parts = [TRAIN, TRAIN, VALID, TEST, TRAIN, VALID, TEST]
    assert data.interactions.parts.tolist() == parts
    assert data.interactions.is_ordered
    assert data.attributes.to_pydict() == items()
    assert data.modalities["visual"].tolist() == VISUAL.tolist()
    assert (data.split, data.notes) == ("leave last two out, by timestamp", ())


def test_load_dataset_converts_integer_ids_to_text(tmp_path):
    taken = interactions(user_id=[-1] * 4 + [10**12] * 3, item_id=[7, 1, 2, 3, 3, 2, 1])
    data = load_dataset(write_shop(tmp_path, taken, items(item_id=["7", "1", "2", "3"])))
    assert data.user_ids == ["-1", "1000000000000"]
    assert data.interactions.item_rows.tolist() == [0, 1, 2, 3, 3, 2, 1]


def test_load_dataset_keeps_csv_ids_verbatim(tmp_path):
    rows = ["007,NA", "007,null", "007,1.0", "007,7"]
    taken = "\n".join(["user_id,item_id", *rows])
    sold = "item_id,year\r\nNA,1999\r\nnull,\r\n1.0,01\r\n7,x\r\n"
    data = load_dataset(write_shop(tmp_path, taken, sold))
    assert data.user_ids == ["007"]
    assert data.item_ids == ["NA", "null", "1.0", "7"]
    assert data.attributes["year"].to_pylist() == ["1999", "", "01", "x"]


def test_load_dataset_decodes_dictionary_ids(tmp_path):
    encoded = {
        "user_id": pa.array(USERS).dictionary_encode(),
        "item_id": pa.array(ITEMS, pa.large_string()).dictionary_encode(),
    }
    data = load_dataset(write_shop(tmp_path, interactions(**encoded)))
    assert data.user_ids == ["ann", "bob"]


def test_user_ids_are_in_order_of_first_appearance(tmp_path):
    order = [5, 0, 4, 1, 2, 6, 3]
    taken = {name: [values[row] for row in order] for name, values in interactions().items()}
    data = load_dataset(write_shop(tmp_path, taken))
    assert data.user_ids == ["bob", "ann"]
    assert data.interactions.item_rows.tolist() == [3, 2, 1, 0, 1, 2, 3]


@pytest.mark.parametrize("column", ["timestamp", "seq_pos"])
def test_ties_are_broken_by_file_row_and_counted(tmp_path, column):
    taken = interactions(**{"timestamp": None, column: [5, 5, 1, 5, 2, 1, 1]})
    data = load_dataset(write_shop(tmp_path, taken))
    assert data.interactions.item_rows.tolist() == [2, 0, 1, 3, 2, 1, 3]
    assert data.notes == (f"ties in {column}, broken by file row: 3",)


def test_repeated_interactions_keep_the_earliest(tmp_path):
    taken = {"user_id": ["ann"] * 5, "item_id": list("aabca"), "timestamp": [3, 1, 2, 4, 5]}
    data = load_dataset(write_shop(tmp_path, taken))
    assert data.interactions.item_rows.tolist() == [0, 1, 2]
    assert "repeated (user, item) rows dropped, first kept: 2" in data.notes


@pytest.mark.parametrize(
    "times",
    [
        pa.array([10**18 + 2, 10**18 + 1, 10**18]),
        pa.array([0.3, 0.2, 0.1]),
        pa.array([3, 2, 1], pa.timestamp("ms", "UTC")),
        pa.array([3, 2, 1], pa.uint8()),
        pa.array([3, 2, 1], pa.float16()),
    ],
)
def test_timestamp_types_define_the_order(tmp_path, times):
    taken = {"user_id": ["ann"] * 3, "item_id": ["a", "b", "c"], "timestamp": times}
    data = load_dataset(write_shop(tmp_path, taken))
    assert data.interactions.item_rows.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    "times",
    [
        ["30", "10", "9"],
        ["1e3", "2.5", "-1"],
        ["2026-01-02", "2026-01-01 10:00:00", "2025-12-31"],
        ["2026-01-01T12:00:00+00:00", "2026-01-01T12:00:00+01:00", "2025-12-31T00:00:00Z"],
    ],
)
def test_csv_timestamp_formats_define_the_order(tmp_path, times):
    rows = [f"ann,{item},{time}" for item, time in zip("abc", times, strict=True)]
    data = load_dataset(write_shop(tmp_path, "\n".join(["user_id,item_id,timestamp", *rows])))
    assert data.interactions.item_rows.tolist() == [2, 1, 0]


def test_unordered_dataset_is_noted(tmp_path):
    data = load_dataset(write_shop(tmp_path, interactions(timestamp=None)))
    assert not data.interactions.is_ordered
    assert data.split == "leave two out per user, seeded random"
    assert any(note.startswith("histories are unordered") for note in data.notes)


def test_numeric_list_columns_are_modalities(tmp_path):
    sold = items(
        features_textual=pa.array([[1, 2], None, [3, 4], [5, 6]], pa.list_(pa.float16(), 2)),
        acoustic=pa.array([[1], [2], [3], [4]], pa.large_list(pa.float64())),
        genres=[["x"], ["y"], [], None],
        sizes=[[1], [2], [3], [4]],
    )
    data = load_dataset(write_shop(tmp_path, sold=sold))
    assert list(data.modalities) == ["acoustic", "textual", "visual"]
    assert {values.dtype.name for values in data.modalities.values()} == {"float32"}
    assert data.modalities["textual"][[0, 2, 3]].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert np.isnan(data.modalities["textual"][1]).all()
    assert data.attributes.column_names == ["item_id", "title", "genres", "sizes"]
    assert data.notes == ("items without textual: 1",)


def test_all_zero_feature_rows_count_as_missing(tmp_path):
    visual = VISUAL.astype(np.float16)
    visual[1] = 0
    visual[3] = np.nan
    data = load_dataset(write_shop(tmp_path, visual=visual))
    assert np.isnan(data.modalities["visual"]).all(axis=1).tolist() == [False, True, False, True]
    assert data.notes == (
        "all-zero rows of visual counted as missing: 1",
        "items without visual: 2",
    )


def test_missing_items_table_uses_feature_rows_as_ids(tmp_path):
    taken = interactions(item_id=[0, 1, 2, 3, 3, 2, 1])
    (write_shop(tmp_path, taken) / "items.parquet").unlink()
    data = load_dataset(tmp_path)
    assert data.item_ids == data.attributes["item_id"].to_pylist() == ["0", "1", "2", "3"]
    assert data.notes == ("no items table: item ids are the rows of features_visual.npy",)


def test_dataset_without_features_is_noted(tmp_path):
    (write_shop(tmp_path) / "features_visual.npy").unlink()
    data = load_dataset(tmp_path)
    assert data.modalities == {}
    assert data.notes == ("no modality: items are known by id alone",)


def test_unused_files_and_items_are_noted(tmp_path):
    write_shop(tmp_path, sold=items(item_id=["a", "b", "c", "d", "e"], title=None), f=np.eye(5))
    np.save(tmp_path / "feature_visual.npy", VISUAL)
    notes = load_dataset(tmp_path).notes
    assert notes == ("items without interactions: 1", "unused files: feature_visual.npy")


# ---------------------------------------------------------------- fingerprint, invariants


def test_fingerprint_is_equal_for_equal_content(tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    first.mkdir()
    again.mkdir()
    csv = "\n".join(["item_id,title", "a,A", "b,B", "c,C", "d,D"])
    fingerprints = {
        load_dataset(write_shop(first)).fingerprint,
        load_dataset(write_shop(again, sold=csv, visual=VISUAL.astype("f8"))).fingerprint,
    }
    assert len(fingerprints) == 1
    assert re.fullmatch("[0-9a-f]{64}", fingerprints.pop())


def test_fingerprint_is_of_length_prefixed_texts_and_rows(tmp_path):
    users = ["zoë"] * 4 + ["b" * 300] * 3
    data = load_dataset(write_shop(tmp_path, interactions(user_id=users)))
    content = b""
    for texts in (["a", "b", "c", "d"], ["zoë", "b" * 300], ["visual"]):
        encoded = [text.encode() for text in texts]
        content += len(texts).to_bytes(8, "little")
        content += b"".join(len(text).to_bytes(8, "little") + text for text in encoded)
    content += bytes([1]) + (7).to_bytes(8, "little")
    content += np.array([0, 0, 0, 0, 1, 1, 1], "<i4").tobytes()
    content += np.array([0, 1, 2, 3, 3, 2, 1], "<i4").tobytes() + bytes([0, 0, 1, 2, 0, 1, 2])
    content += (2).to_bytes(8, "little") + VISUAL.tobytes()
    assert data.fingerprint == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "changed",
    [
        {"visual": VISUAL + np.eye(4, 2, dtype=np.float32)},
        {"textual": VISUAL},
        {"sold": items(item_id=["a", "b", "c", "dd"]), "taken": interactions(item_id=[*"abcbacb"])},
        {"taken": interactions(user_id=["ann"] * 4 + ["rob"] * 3)},
        {"taken": interactions(timestamp=[2, 1, 3, 4, 1, 2, 3])},
        {"taken": interactions(split=[*["train"] * 2, "test", "valid", "train", "valid", "test"])},
    ],
)
def test_fingerprint_changes_with_training_input(tmp_path, changed):
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.mkdir()
    other.mkdir()
    before = load_dataset(write_shop(plain)).fingerprint
    assert load_dataset(write_shop(other, **changed)).fingerprint != before


@pytest.mark.parametrize(
    ("user_rows", "item_rows", "parts", "message"),
    [
        ([0, 0], [1], [0, 0], "the same length"),
        ([0, 0], [-1, 1], [0, 0], "0 or more"),
        ([1, 0], [0, 1], [0, 0], "sorted by user"),
        ([0, 0], [0, 1], [0, 3], "TRAIN, VALID or TEST"),
        ([0, 0], [1, 1], [0, 0], "must be unique"),
    ],
)
def test_interactions_reject_inconsistent_arrays(user_rows, item_rows, parts, message):
    users, items_, parts_ = (np.array(rows, np.int32) for rows in (user_rows, item_rows, parts))
    with pytest.raises(ValueError, match=message):
        Interactions(users, items_, parts_.astype(np.int8), is_ordered=True)


def test_dataset_rejects_rows_out_of_range(tmp_path):
    data = load_dataset(write_shop(tmp_path))
    with pytest.raises(ValueError, match="row 3 is out of range for 3 ids"):
        Dataset(data.item_ids[:3], data.user_ids, data.interactions, {}, None, "", (), "")


# ---------------------------------------------------------------- real data


def test_amazon_instruments_has_expected_size(test_data):
    data = load_dataset(test_data("amazon_instruments"))
    assert (len(data.user_ids), len(data.item_ids)) == (17_112, 6_250)
    assert np.bincount(data.interactions.parts).tolist() == [102_002, 17_112, 17_112]
    assert {name: values.shape for name, values in data.modalities.items()} == {
        "textual": (6_250, 256),
        "visual": (6_250, 256),
    }
    assert (data.split, data.interactions.is_ordered) == ("source split column", True)


def test_amazon_split_column_equals_leave_last_two(test_data):
    folder = test_data("amazon_instruments")
    by_column, by_time = load_dataset(folder), load_dataset(folder, "leave-last-two")
    assert by_column.fingerprint == by_time.fingerprint


def test_ml100k_is_split_by_time_with_ties_counted(test_data):
    data = load_dataset(test_data("ml100k_posters"))
    assert (len(data.user_ids), len(data.item_ids)) == (943, 1_459)
    assert np.bincount(data.interactions.parts).tolist() == [97_645, 943, 943]
    assert any(note.startswith("ties in timestamp") for note in data.notes)


def test_ml1m_is_unordered(test_data):
    data = load_dataset(test_data("ml1m_posters"))
    assert (len(data.user_ids), len(data.item_ids)) == (6_040, 3_255)
    assert np.bincount(data.interactions.parts).tolist() == [986_008, 6_040, 6_040]
    assert not data.interactions.is_ordered
