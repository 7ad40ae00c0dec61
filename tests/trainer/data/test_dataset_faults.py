import re

import numpy as np
import pyarrow as pa
import pytest

from index.errors import DatasetError
from tests.support.training_shops import ITEMS, USERS, VISUAL, interactions, items, write_shop
from trainer.data.dataset import load_dataset


def test_missing_folder_is_reported(tmp_path):
    with pytest.raises(DatasetError, match="shop: no such folder; expected a dataset folder"):
        load_dataset(tmp_path / "shop")


def test_missing_file_lists_existing_files(tmp_path):
    write_shop(tmp_path)
    (tmp_path / "interactions.parquet").rename(tmp_path / "ratings.parquet")
    message = (
        r"interactions\.parquet: .*interactions\.parquet or interactions\.csv.*: "
        r"features_visual.npy, items.parquet, ratings.parquet"
    )
    with pytest.raises(DatasetError, match=message):
        load_dataset(tmp_path)


def test_missing_items_and_features_is_reported(tmp_path):
    write_shop(tmp_path)
    (tmp_path / "items.parquet").unlink()
    (tmp_path / "features_visual.npy").unlink()
    with pytest.raises(DatasetError, match=r"expected items.parquet or items.csv in"):
        load_dataset(tmp_path)


def test_parquet_and_csv_of_same_table_is_reported(tmp_path):
    write_shop(tmp_path)
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nann,a\n")
    with pytest.raises(DatasetError, match=r"interactions\.parquet and interactions\.csv: "):
        load_dataset(tmp_path)


def test_missing_column_lists_existing_columns(tmp_path):
    taken = interactions(user_id=None, user=USERS)
    message = (
        r"interactions\.parquet, column user_id: missing; .*user_id and item_id.*: "
        "item_id, timestamp, user"
    )
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, taken))


def test_duplicate_column_is_reported(tmp_path):
    sold = "item_id,title,title\na,A,A\nb,B,B\nc,C,C\nd,D,D\n"
    with pytest.raises(DatasetError, match=r"items\.csv, column title: .*2 times"):
        load_dataset(write_shop(tmp_path, sold=sold))


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"user_id,item_id\n"])
def test_invalid_parquet_includes_library_error(tmp_path, content):
    with pytest.raises(DatasetError, match=r"interactions\.parquet: .*\(.+\)"):
        load_dataset(write_shop(tmp_path, content))


def test_truncated_parquet_is_reported(tmp_path):
    path = write_shop(tmp_path) / "items.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"items\.parquet: .*\(.+\)"):
        load_dataset(tmp_path)


def test_malformed_csv_is_reported_with_row(tmp_path):
    taken = "user_id,item_id\nann,a\nann,b,3\n"
    message = r"interactions\.csv: .*\(.*Expected 2 columns, got 3: ann,b,3\)"
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, taken))


@pytest.mark.parametrize("table", ["interactions", "items"])
def test_empty_table_is_reported(tmp_path, table):
    empty = {"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}
    shop = {"taken": empty} if table == "interactions" else {"sold": empty}
    with pytest.raises(DatasetError, match=rf"{table}\.parquet: .*no rows"):
        load_dataset(write_shop(tmp_path, **shop))


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0, 4.0], [True, False, True, False]])
def test_unsupported_id_type_is_reported(tmp_path, values):
    message = (
        r"items\.parquet, column item_id: found ids of type (double|bool); "
        "expected text or integers"
    )
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, sold=items(item_id=values)))


def test_null_id_is_reported_with_rows(tmp_path):
    taken = interactions(user_id=["ann", None, "ann", None, "bob", "bob", "bob"])
    message = r"interactions\.parquet, column user_id, row 1: .*null; expected an id; .*: 1, 3\)"
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, taken))


def test_empty_id_is_reported_once_with_line(tmp_path):
    taken = "user_id,item_id\nann,a\n\nann,\n"
    with pytest.raises(DatasetError) as caught:
        load_dataset(write_shop(tmp_path, taken))
    (fault,) = caught.value.faults
    assert fault.startswith("interactions.csv, column item_id, line 4: ")
    assert "expected an id" in fault


def test_repeated_item_id_is_reported_with_both_rows(tmp_path):
    message = r"items\.parquet, column item_id, row 3: .*'b'.* row 1"
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, sold=items(item_id=["a", "b", "c", "b"])))


def test_item_id_that_no_request_may_hold_is_reported(tmp_path):
    message = r"items\.parquet, column item_id, row 1: an id of 513 characters; expected at most"
    ids = ["a", "b" * 513, "c" * 512, "d"]
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, sold=items(item_id=ids)))


def test_unknown_item_is_reported_with_count_and_rows(tmp_path):
    taken = interactions(item_id=["a", "x", "c", "y", "x", "x", "b"])
    message = (
        r"interactions\.parquet, column item_id, row 1: .*'x'; expected one of the 4 ids of the "
        r"items table; add the item or drop the row .*4 .*: 1, 3, 4\)"
    )
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, taken))


def test_csv_faults_use_physical_line_numbers(tmp_path):
    taken = 'user_id,note,item_id\nann,"two\nlines",a\n\nann,,x\n'
    with pytest.raises(DatasetError, match=r"interactions\.csv, column item_id, line 5: .*'x';"):
        load_dataset(write_shop(tmp_path, taken))


def test_long_cell_is_truncated_in_message(tmp_path):
    taken = "user_id,item_id\nann,a\nann," + '"x\n' + "y" * 200_000 + '"\n'
    with pytest.raises(DatasetError, match=r"line 3: .*'x\\ny{58}\.\.\.'; expected one of"):
        load_dataset(write_shop(tmp_path, taken))


def test_invalid_split_value_is_reported(tmp_path):
    taken = interactions(split=["train", "train", "val", "test", "train", "dev", "test"])
    message = (
        r"interactions\.parquet, column split, row 2: .*'val'; expected train, valid or test; "
        r"correct the value, or drop .*: 2, 5\)"
    )
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, taken))


@pytest.mark.parametrize("values", [[0] * 7, [None] * 7])
def test_non_text_split_column_is_reported(tmp_path, values):
    message = "column split, row 0: .*('0'|null); expected train, valid or test"
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, interactions(split=values)))


@pytest.mark.parametrize(
    ("value", "received"), [(None, "null"), (np.nan, "'nan'"), (np.inf, "'inf'")]
)
def test_non_finite_timestamp_is_reported(tmp_path, value, received):
    taken = interactions(timestamp=[1.5, 2.5, value, 4.5, 1.5, 2.5, 3.5])
    message = f"column timestamp, row 2: .*{received}; expected a finite"
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, taken))


def test_text_timestamps_in_parquet_are_reported(tmp_path):
    taken = interactions(timestamp=["1", "2", "3", "4", "1", "2", "3"])
    message = "column timestamp: found type string; expected an integer, float or timestamp type"
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, taken))


@pytest.mark.parametrize(
    ("good", "bad"), [("12", "soon"), ("1.5", ""), ("2026-01-31T10:00:00", "2026-13-31")]
)
def test_invalid_csv_timestamp_is_reported_with_line(tmp_path, good, bad):
    times = [good, good, bad, good]
    rows = [f"ann,{item},{time}" for item, time in zip("abcd", times, strict=True)]
    taken = "\n".join(["user_id,item_id,timestamp", *rows])
    message = rf"interactions\.csv, column timestamp, line 4: .*'{bad}'; expected a finite number"
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, taken))


def test_feature_row_count_mismatch_is_reported(tmp_path):
    with pytest.raises(DatasetError, match=r"features_visual\.npy: found 3 rows; expected 4"):
        load_dataset(write_shop(tmp_path, visual=VISUAL[:3]))


def test_partly_nan_feature_row_is_reported_with_item(tmp_path):
    visual = VISUAL.copy()
    visual[2, 0] = np.nan
    message = r"features_visual\.npy, row 2 \(item 'c'\): .*NaN.*; expected finite numbers"
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, visual=visual))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_float32_overflow_is_reported_with_item(tmp_path, value):
    visual = VISUAL.astype(np.float64)
    visual[1:3, 1] = value
    message = r"features_visual\.npy, row 1 \(item 'b'\): .*infinite.*float32.*: 1, 2\)"
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, visual=visual))


def test_partly_null_list_is_reported_with_item(tmp_path):
    sold = items(textual=[[1.0, 2.0], [1.0, None], [3.0, 4.0], [3.0, 4.0]])
    with pytest.raises(DatasetError, match=r"items.parquet, column textual, row 1 \(item 'b'\)"):
        load_dataset(write_shop(tmp_path, sold=sold))


def test_feature_lists_of_unequal_length_are_reported(tmp_path):
    sold = items(textual=[None, [1.0, 2.0], [1.0], [3.0, 4.0]])
    message = r"items\.parquet, column textual, row 2: .*a list of 1; expected 2 numbers .*row 1"
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, sold=sold))


def test_duplicate_modality_is_reported(tmp_path):
    sold = items(features_visual=VISUAL.tolist())
    with pytest.raises(DatasetError, match=r"modality visual .*features_visual\.npy"):
        load_dataset(write_shop(tmp_path, sold=sold))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((4, 2), np.int64), ".*int64; expected float16, float32 or float64"),
        (np.ones(4, np.float32), r".*shape \(4,\); expected "),
        (np.full((4, 2), np.nan, np.float32), ".*every row"),
        (np.array([[1], ["x"], [3], [4]], dtype=object), ".*pickle"),
    ],
)
def test_invalid_feature_array_is_reported(tmp_path, values, message):
    with pytest.raises(DatasetError, match=rf"features_visual\.npy: {message}"):
        load_dataset(write_shop(tmp_path, visual=values))


@pytest.mark.parametrize("content", [b"", b"no array"])
def test_unreadable_feature_file_is_reported(tmp_path, content):
    path = write_shop(tmp_path) / "features_visual.npy"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"features_visual\.npy: .*\(.+\)"):
        load_dataset(tmp_path)


def test_dataset_without_cases_is_reported(tmp_path):
    taken = {"user_id": ["ann", "ann"], "item_id": ["a", "b"], "timestamp": [1, 2]}
    message = (
        r"no test case after the split \(leave last two out, by timestamp\); expected a user "
        "with an item in test and an earlier part; add interactions or choose another split"
    )
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(write_shop(tmp_path, taken))
    assert len(caught.value.faults) == 2  # the other: no valid case


def test_dataset_without_train_interactions_is_reported(tmp_path):
    taken = interactions(split=["valid", "valid", "test", "test", "valid", "test", "test"])
    with pytest.raises(DatasetError, match="no train interaction after the split"):
        load_dataset(write_shop(tmp_path, taken))


@pytest.mark.parametrize(
    ("split", "columns", "message"),
    [
        ("column", {}, "the split column requires a column split; found: user_id, item_id, timest"),
        ("last-fifth", {"timestamp": None, "seq_pos": [1] * 7}, "seq_pos orders only within"),
        ("leave-last-two", {"timestamp": None}, "add one, or use the split random"),
    ],
)
def test_split_without_required_columns_is_reported(tmp_path, split, columns, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(write_shop(tmp_path, interactions(**columns)), split)


def test_faults_of_several_files_are_reported_together(tmp_path):
    taken = interactions(user_id=[None, *USERS[1:]], item_id=["x", *ITEMS[1:]], split=["?"] * 7)
    sold = items(textual=[[1.0], [1.0, 2.0], None, None])
    with pytest.raises(DatasetError) as caught:
        load_dataset(write_shop(tmp_path, taken, sold, visual=VISUAL[:3]))
    assert len(caught.value.faults) == 5
    faults = "\n".join(caught.value.faults)
    for part in ("user_id, row 0", "'x'", "'?'", "textual, row 1", "3 rows"):
        assert part in faults


def test_unreadable_items_table_does_not_hide_other_faults(tmp_path):
    taken = interactions(split=["?"] * 7)
    visual = np.array([[np.nan, 1.0]] * 4, dtype=np.float32)
    with pytest.raises(DatasetError) as caught:
        load_dataset(write_shop(tmp_path, taken, b"no table", visual=visual))
    assert len(caught.value.faults) == 3
    faults = "\n".join(caught.value.faults)
    assert re.search(r"items\.parquet: ", faults)
    assert re.search(r"column split, row 0", faults)
    assert re.search(r"features_visual\.npy, row 0: .*NaN", faults)
