import re

import numpy as np
import pyarrow as pa
import pytest

from index.errors import DatasetError
from tests.support.training_shops import ITEMS, USERS, VISUAL, interactions, items, write_shop
from trainer.data.dataset import load_dataset


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="shop: no such folder; give that of a dataset"):
        load_dataset(tmp_path / "shop")


def test_a_missing_file_is_named_beside_what_was_found(tmp_path):
    write_shop(tmp_path)
    (tmp_path / "interactions.parquet").rename(tmp_path / "ratings.parquet")
    told = (
        r"interactions.parquet: missing; expected interactions.parquet or interactions.csv in "
        r".*; found: features_visual.npy, items.parquet, ratings.parquet; put it there"
    )
    with pytest.raises(DatasetError, match=told):
        load_dataset(tmp_path)


def test_a_missing_items_table_without_features_is_a_fault(tmp_path):
    write_shop(tmp_path)
    (tmp_path / "items.parquet").unlink()
    (tmp_path / "features_visual.npy").unlink()
    with pytest.raises(DatasetError, match=r"expected items.parquet or items.csv in"):
        load_dataset(tmp_path)


def test_two_files_of_one_name_are_a_fault(tmp_path):
    write_shop(tmp_path)
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nann,a\n")
    told = "interactions.parquet and interactions.csv: both are there; expected one of them"
    with pytest.raises(DatasetError, match=told):
        load_dataset(tmp_path)


def test_a_missing_column_is_named_beside_those_found(tmp_path):
    taken = interactions(user_id=None, user=USERS)
    told = (
        "interactions.parquet, column user_id: missing; expected columns user_id and item_id; "
        "found: item_id, timestamp, user; add or rename it"
    )
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, taken))


def test_a_column_that_is_there_twice_is_a_fault(tmp_path):
    sold = "item_id,title,title\na,A,A\nb,B,B\nc,C,C\nd,D,D\n"
    with pytest.raises(DatasetError, match=r"items.csv, column title: found 2 times"):
        load_dataset(write_shop(tmp_path, sold=sold))


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"user_id,item_id\n"])
def test_a_file_that_is_not_parquet_is_told_with_what_the_library_said(tmp_path, content):
    told = r"interactions.parquet: cannot be read \(.+\); expected a whole parquet file; write"
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, content))


def test_a_truncated_parquet_file_is_told(tmp_path):
    path = write_shop(tmp_path) / "items.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"items.parquet: cannot be read \(.+\)"):
        load_dataset(tmp_path)


def test_a_malformed_csv_is_told_with_the_row(tmp_path):
    taken = "user_id,item_id\nann,a\nann,b,3\n"
    told = r"interactions.csv: cannot be read \(.*Expected 2 columns, got 3: ann,b,3\)"
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, taken))


def test_a_csv_that_is_not_utf8_is_told(tmp_path):
    path = write_shop(tmp_path) / "interactions.csv"
    (tmp_path / "interactions.parquet").unlink()
    path.write_bytes("user_id,item_id\nzoë,a\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"interactions.csv: cannot be read \('utf-8' codec"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("place", ["interactions", "items"])
def test_an_empty_table_is_a_fault(tmp_path, place):
    empty = {"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}
    shop = {"taken": empty} if place == "interactions" else {"sold": empty}
    told = f"{place}.parquet: found no rows; expected at least one"
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, **shop))


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0, 4.0], [True, False, True, False]])
def test_ids_of_another_type_are_a_fault_with_the_remedy(tmp_path, values):
    told = (
        "items.parquet, column item_id: found ids of type (double|bool); "
        "expected text or integers; write them as text"
    )
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, sold=items(item_id=values)))


def test_a_null_id_is_a_fault(tmp_path):
    taken = interactions(user_id=["ann", None, "ann", None, "bob", "bob", "bob"])
    told = (
        "interactions.parquet, column user_id, row 1: null; expected an id; "
        r"give it one or drop the row \(2 such rows, the first: 1, 3\)"
    )
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, taken))


def test_an_empty_id_is_told_once_with_its_line(tmp_path):
    taken = "user_id,item_id\nann,a\n\nann,\n"
    with pytest.raises(DatasetError) as caught:
        load_dataset(write_shop(tmp_path, taken))
    (fault,) = caught.value.faults
    assert fault.startswith("interactions.csv, column item_id, line 4: an empty text; expected an")


def test_a_repeated_item_id_is_told_with_both_rows(tmp_path):
    told = (
        "items.parquet, column item_id, row 3: 'b' again, it is also in row 1; "
        "expected each id in one row; drop one of the two"
    )
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, sold=items(item_id=["a", "b", "c", "b"])))


def test_an_unknown_item_is_told_with_count_and_first_rows(tmp_path):
    taken = interactions(item_id=["a", "x", "c", "y", "x", "x", "b"])
    told = (
        "interactions.parquet, column item_id, row 1: 'x'; expected one of the 4 ids of the "
        "items table; add the item or drop the row "
        r"\(4 such rows, the first: 1, 3, 4\)"
    )
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, taken))


def test_lines_of_a_csv_are_those_an_editor_shows(tmp_path):
    taken = 'user_id,note,item_id\nann,"two\nlines",a\n\nann,,x\n'
    with pytest.raises(DatasetError, match=r"interactions.csv, column item_id, line 5: 'x';"):
        load_dataset(write_shop(tmp_path, taken))


def test_a_cell_of_any_length_is_told_in_one_short_line(tmp_path):
    taken = "user_id,item_id\nann,a\nann," + '"x\n' + "y" * 200_000 + '"\n'
    with pytest.raises(DatasetError, match=r"line 3: 'x\\ny{58}\.\.\.'; expected one of"):
        load_dataset(write_shop(tmp_path, taken))


def test_a_bad_split_value_is_named(tmp_path):
    taken = interactions(split=["train", "train", "val", "test", "train", "dev", "test"])
    told = (
        "interactions.parquet, column split, row 2: 'val'; expected train, valid or test; "
        r"correct it, or drop .* \(2 such rows, the first: 2, 5\)"
    )
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, taken))


@pytest.mark.parametrize("values", [[0] * 7, [None] * 7])
def test_a_split_column_that_is_not_text_is_a_fault(tmp_path, values):
    told = "column split, row 0: ('0'|null); expected train, valid or test"
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, interactions(split=values)))


@pytest.mark.parametrize(("moment", "told"), [(None, "null"), (np.nan, "'nan'"), (np.inf, "'inf'")])
def test_a_time_that_is_no_number_is_a_fault(tmp_path, moment, told):
    taken = interactions(timestamp=[1.5, 2.5, moment, 4.5, 1.5, 2.5, 3.5])
    with pytest.raises(DatasetError, match=f"column timestamp, row 2: {told}; expected a fin"):
        load_dataset(write_shop(tmp_path, taken))


def test_times_as_text_in_parquet_are_a_fault(tmp_path):
    taken = interactions(timestamp=["1", "2", "3", "4", "1", "2", "3"])
    told = "column timestamp: found type string; expected an integer, float or timestamp type"
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, taken))


@pytest.mark.parametrize(
    ("good", "bad"), [("12", "soon"), ("1.5", ""), ("2026-01-31T10:00:00", "2026-13-31")]
)
def test_a_time_that_cannot_be_read_from_a_csv_is_told_with_its_line(tmp_path, good, bad):
    times = [good, good, bad, good]
    rows = [f"ann,{item},{time}" for item, time in zip("abcd", times, strict=True)]
    taken = "\n".join(["user_id,item_id,timestamp", *rows])
    told = f"interactions.csv, column timestamp, line 4: '{bad}'; expected a finite number or"
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, taken))


def test_feature_rows_that_do_not_match_the_items_are_a_fault(tmp_path):
    told = "features_visual.npy: found 3 rows; expected 4, one per item in the order of the items"
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, visual=VISUAL[:3]))


def test_a_row_that_is_partly_nan_is_told_with_its_item(tmp_path):
    visual = VISUAL.copy()
    visual[2, 0] = np.nan
    told = (
        r"features_visual.npy, row 2 \(item 'c'\): found NaN among its 2 numbers; "
        "expected finite numbers, or all NaN if missing; correct"
    )
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, visual=visual))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_a_row_that_float32_cannot_hold_is_told_with_its_item(tmp_path, value):
    visual = VISUAL.astype(np.float64)
    visual[1:3, 1] = value
    told = (
        r"features_visual.npy, row 1 \(item 'b'\): found an infinite number, as float32; .* "
        r"\(2 such rows, the first: 1, 2\)"
    )
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, visual=visual))


def test_a_list_that_is_partly_null_is_told_with_its_item(tmp_path):
    sold = items(textual=[[1.0, 2.0], [1.0, None], [3.0, 4.0], [3.0, 4.0]])
    with pytest.raises(DatasetError, match=r"items.parquet, column textual, row 1 \(item 'b'\)"):
        load_dataset(write_shop(tmp_path, sold=sold))


def test_lists_of_several_widths_are_a_fault(tmp_path):
    sold = items(textual=[None, [1.0, 2.0], [1.0], [3.0, 4.0]])
    told = (
        "items.parquet, column textual, row 2: a list of 1; expected 2 numbers as in row 1, "
        "or null; make all rows of one width"
    )
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, sold=sold))


def test_a_modality_in_two_places_is_a_fault(tmp_path):
    sold = items(features_visual=VISUAL.tolist())
    told = "found the modality visual again, also in features_visual.npy; expected each .* once"
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, sold=sold))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.ones((4, 2), np.int64), "found int64; expected float16, float32 or float64"),
        (np.ones(4, np.float32), r"found shape \(4,\); expected \(items, width\)"),
        (np.full((4, 2), np.nan, np.float32), "found every row missing"),
        (np.array([[1], ["x"], [3], [4]], dtype=object), "cannot be read .*pickle"),
    ],
)
def test_an_array_of_another_kind_is_a_fault(tmp_path, values, told):
    with pytest.raises(DatasetError, match=rf"features_visual.npy: {told}"):
        load_dataset(write_shop(tmp_path, visual=values))


@pytest.mark.parametrize("content", [b"", b"no array"])
def test_an_array_file_that_cannot_be_read_is_told(tmp_path, content):
    path = write_shop(tmp_path) / "features_visual.npy"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"features_visual.npy: cannot be read \(.+\)"):
        load_dataset(tmp_path)


def test_a_set_with_nobody_to_ask_about_is_a_fault(tmp_path):
    taken = {"user_id": ["ann", "ann"], "item_id": ["a", "b"], "timestamp": [1, 2]}
    told = (
        r"no test case after the split \(leave last two out, by timestamp\); expected a user "
        "with an item in test and an earlier part; add interactions or choose another split"
    )
    with pytest.raises(DatasetError, match=told) as caught:
        load_dataset(write_shop(tmp_path, taken))
    assert len(caught.value.faults) == 2  # the other: no valid case


def test_a_set_with_nothing_to_train_on_is_a_fault(tmp_path):
    taken = interactions(split=["valid", "valid", "test", "test", "valid", "test", "test"])
    with pytest.raises(DatasetError, match="nothing in train after the split"):
        load_dataset(write_shop(tmp_path, taken))


@pytest.mark.parametrize(
    ("split", "columns", "told"),
    [
        (
            "column",
            {},
            "the split column needs a column split; found: user_id, item_id, timest",
        ),
        ("last-fifth", {"timestamp": None, "seq_pos": [1] * 7}, "seq_pos orders only within"),
        ("leave-last-two", {"timestamp": None}, "add one, or choose the split random"),
    ],
)
def test_a_split_that_the_columns_do_not_allow_is_a_fault(tmp_path, split, columns, told):
    with pytest.raises(DatasetError, match=told):
        load_dataset(write_shop(tmp_path, interactions(**columns)), split)


def test_faults_of_several_files_are_told_together(tmp_path):
    taken = interactions(user_id=[None, *USERS[1:]], item_id=["x", *ITEMS[1:]], split=["?"] * 7)
    sold = items(textual=[[1.0], [1.0, 2.0], None, None])
    with pytest.raises(DatasetError, match="5 faults found") as caught:
        load_dataset(write_shop(tmp_path, taken, sold, visual=VISUAL[:3]))
    told = "\n".join(caught.value.faults)
    for words in ("user_id, row 0", "'x'", "'?'", "textual, row 1", "found 3 rows"):
        assert words in told


def test_an_items_table_that_cannot_be_read_does_not_hide_other_faults(tmp_path):
    taken = interactions(split=["?"] * 7)
    visual = np.array([[np.nan, 1.0]] * 4, dtype=np.float32)
    with pytest.raises(DatasetError, match="3 faults found") as caught:
        load_dataset(write_shop(tmp_path, taken, b"no table", visual=visual))
    told = "\n".join(caught.value.faults)
    assert re.search(r"items.parquet: cannot be read", told)
    assert re.search(r"column split, row 0", told)
    assert re.search(r"features_visual.npy, row 0: found NaN", told)
