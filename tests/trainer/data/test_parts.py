"""Interactions as a folder of Parquet parts: the same data as one file, and faults by part."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from index.errors import DatasetError
from index.ingest.changes import detect_changes
from index.ingest.tables import Findings
from tests.support.training_shops import ITEMS, TIMES, USERS, write_shop
from trainer.data.dataset import load_dataset
from trainer.data.events import read_events
from trainer.data.interaction_files import list_files, open_files
from trainer.data.interactions import mark_first_of_pairs, sort_by_user


def write_parts(folder, *parts, names=None):
    """Dataset folder whose interactions are these tables, as parts `part-0.parquet` ..."""
    (write_shop(folder) / "interactions.parquet").unlink()
    (folder / "interactions.parquet").mkdir()
    for number, part in enumerate(parts):
        name = names[number] if names else f"part-{number}.parquet"
        path = folder / "interactions.parquet" / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(part), path)
    return folder


def rows(first, last, **changes):
    """Some rows of the interactions of the shop."""
    columns = {"user_id": USERS, "item_id": ITEMS, "timestamp": TIMES}
    return {name: values[first:last] for name, values in columns.items()} | changes


def faults_of(folder):
    with pytest.raises(DatasetError) as caught:
        load_dataset(folder)
    return caught.value.faults


def state_of(data):
    """All that training sees of a dataset."""
    return data.fingerprint, data.user_ids, data.interactions.item_rows.tolist(), data.split


EVENTS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from("abcd"), st.integers(0, 3)), max_size=20
)


@settings(max_examples=40, deadline=None)
@given(EVENTS, st.lists(st.integers(0, 27), max_size=5), st.booleans())
def test_any_partition_equals_a_single_file(events, cuts, has_times):
    events = [*zip([7] * 4, "abcd", [1, 2, 3, 4], strict=True), *events]  # a case to evaluate
    users, items, times = zip(*events, strict=True)
    whole = {"user_id": users, "item_id": items} | ({"timestamp": times} if has_times else {})
    table, bounds = pa.table(whole), [0, *sorted(cuts), len(users)]
    with TemporaryDirectory() as single, TemporaryDirectory() as many:
        parts = [table.slice(first, max(0, last - first)) for first, last in pairwise(bounds)]
        expected = load_dataset(write_shop(Path(single), whole))
        data = load_dataset(write_parts(Path(many), *parts))
    assert state_of(data) == state_of(expected)
    assert [note for note in data.notes if "parts" not in note] == list(expected.notes)


def test_parts_are_read_in_the_order_of_names(tmp_path):
    names = ["b/part-0.parquet", "a/part-1.parquet"]
    folder = write_parts(tmp_path, rows(0, 4), rows(4, 7), names=names)
    assert load_dataset(folder).user_ids == ["bob", "ann"]


def test_small_batches_equal_a_large_batch(tmp_path):
    write_parts(tmp_path, rows(0, 3), rows(3, 4), rows(4, 7))
    files = open_files(tmp_path, Findings())
    small, large = (
        read_events(replace(files, batch_rows=count), list("abcd"), Findings())
        for count in (1, 1_000)
    )
    assert small.user_ids.to_pylist() == large.user_ids.to_pylist() == ["ann", "bob"]
    for name in ("user_rows", "item_rows", "timestamps"):
        assert getattr(small, name).tolist() == getattr(large, name).tolist()


def test_fault_in_a_long_part_has_its_row(tmp_path):
    users = ["ann"] * 200_000
    users[150_000] = ""
    part = {"user_id": users, "item_id": ["a"] * 200_000}
    (fault,) = faults_of(write_parts(tmp_path, {name: part[name][:9] for name in part}, part))
    assert "part-1.parquet, column user_id, row 150000: an empty text" in fault


def test_unfinished_and_other_files_are_no_parts(tmp_path):
    folder = write_parts(tmp_path, rows(0, 7)) / "interactions.parquet"
    (folder / "_temporary").mkdir()
    for name in ("_SUCCESS", ".part-0.parquet.crc", ".part-1.parquet", "_temporary/part-1.parquet"):
        (folder / name).write_bytes(b"no table")
    assert load_dataset(tmp_path).user_ids == ["ann", "bob"]


def test_duplicate_pairs_across_parts_keep_the_earliest(tmp_path):
    late = {"user_id": ["ann", "bob"], "item_id": ["a", "a"], "timestamp": [9, 9]}
    data = load_dataset(write_parts(tmp_path, late, rows(0, 7)))
    assert data.interactions.item_rows.tolist() == [0, 1, 2, 3, 3, 2, 1, 0]
    assert "repeated (user, item) rows dropped, first kept: 1" in data.notes


def test_sorting_in_ranges_equals_sorting_at_once():
    rng = np.random.default_rng(0)
    users = rng.integers(0, 50, 2_000).astype(np.int32)
    items = rng.integers(0, 30, 2_000).astype(np.int32)
    times = rng.integers(0, 100, 2_000)
    order = sort_by_user(users, times, at_once=100)
    assert order.tolist() == np.lexsort((times, users)).tolist()
    pairs = users[order].astype(np.int64) * 30 + items[order]
    firsts = np.unique(pairs, return_index=True)[1]
    is_first = mark_first_of_pairs(users[order], items[order], at_once=100)
    assert np.flatnonzero(is_first).tolist() == sorted(firsts)


# ---------------------------------------------------------------- faults


def test_folder_without_parts_is_reported(tmp_path):
    (fault,) = faults_of(write_parts(tmp_path))
    assert fault.startswith("interactions.parquet: found no parts in the folder; expected")


def test_part_that_vanishes_is_reported(tmp_path):
    folder = write_parts(tmp_path, rows(0, 7)) / "interactions.parquet"
    (folder / "part-1.parquet").symlink_to(folder / "gone.parquet")  # listed, but not there
    (fault,) = faults_of(tmp_path)
    assert fault.startswith("interactions.parquet/part-1.parquet: cannot be read (")


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"new")])
def test_part_that_changes_while_read_is_reported(tmp_path, change):
    write_parts(tmp_path, rows(0, 4), rows(4, 7))
    findings = Findings()
    with detect_changes(tmp_path, findings, list_files):
        change(tmp_path / "interactions.parquet" / "part-1.parquet")
    (fault,) = findings.faults
    assert fault.startswith("interactions.parquet/part-1.parquet: changed while the folder was")


def test_part_replaced_after_opening_is_reported(tmp_path):
    write_parts(tmp_path, rows(0, 4), rows(4, 7))
    findings = Findings()
    files = open_files(tmp_path, findings)
    longer = tmp_path / "interactions.parquet" / "part-0.parquet"
    pq.write_table(pa.table(rows(0, 7)), longer)
    assert [len(table) for _, table in files.batches(["user_id"], findings)] == [3]
    (fault,) = findings.faults
    assert fault.startswith("interactions.parquet/part-0.parquet: cannot be read (")


def test_missing_number_is_noted(tmp_path):
    names = ["part-00000-x.parquet", "part-00002-x.parquet"]
    data = load_dataset(write_parts(tmp_path, rows(0, 4), rows(4, 7), names=names))
    assert "numbers without a part: 1; check that all parts were copied" in data.notes


def test_dates_are_no_numbers_of_parts(tmp_path):
    names = ["part-20260101.parquet", "part-20260301.parquet"]
    assert load_dataset(write_parts(tmp_path, rows(0, 4), rows(4, 7), names=names)).notes == ()


def test_empty_part_is_noted(tmp_path):
    empty = {name: pa.array(values).slice(0, 0) for name, values in rows(0, 7).items()}
    data = load_dataset(write_parts(tmp_path, rows(0, 4), empty, rows(4, 7)))
    assert data.notes == ("parts without rows: 1",)
    assert len(data.interactions.parts) == 7


def test_only_empty_parts_are_reported(tmp_path):
    empty = {name: pa.array(values).slice(0, 0) for name, values in rows(0, 7).items()}
    (fault,) = faults_of(write_parts(tmp_path, empty, empty))
    assert fault.startswith("interactions.parquet: found no rows; expected at least one")


def test_part_of_no_bytes_is_reported(tmp_path):
    folder = write_parts(tmp_path, rows(0, 7)) / "interactions.parquet"
    (folder / "part-1.parquet").touch()
    (fault,) = faults_of(tmp_path)
    assert fault.startswith("interactions.parquet/part-1.parquet: cannot be read (")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestamp": pa.array([1, 2, 3], pa.timestamp("ms"))}, "found timestamp[ms]; expected"),
        ({"user_id": [1, 2, 3]}, "column user_id: found int64; expected string as in "),
        ({"split": ["train", "valid", "test"]}, "found string; expected no such column as in"),
    ],
)
def test_parts_of_different_schemas_are_reported(tmp_path, changes, message):
    (fault,) = faults_of(write_parts(tmp_path, rows(0, 4), rows(4, 7, **changes)))
    assert fault.startswith("interactions.parquet/part-1.parquet, column ")
    assert message in fault
    assert fault.endswith("part-0.parquet; write all parts with one schema")


def test_parts_may_differ_in_encoding_and_other_columns(tmp_path):
    users = pa.array(USERS[4:], pa.large_string()).dictionary_encode()
    folder = write_parts(tmp_path, rows(0, 4), rows(4, 7, user_id=users, price=[1.0, 2.0, 3.0]))
    assert load_dataset(folder).user_ids == ["ann", "bob"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_id": ["d", "x", "y"]}, "column item_id, row 1: 'x'; expected one of the 4 ids"),
        ({"user_id": ["bob", None, "bob"]}, "column user_id, row 1: null; expected an id"),
        ({"timestamp": [1, None, None]}, "column timestamp, row 1: null; expected a finite"),
        (
            {
                "item_id": pa.Array.from_buffers(
                    pa.string(), 3, pa.array([b"d", b"\xeb", b"b"], pa.binary()).buffers()
                )
            },
            "column item_id, row 1: found text that is not UTF-8",
        ),
    ],
)
def test_fault_names_part_column_and_row(tmp_path, changes, message):
    broken = rows(4, 7, **changes)
    (fault,) = faults_of(write_parts(tmp_path, rows(0, 4), broken))
    assert fault.startswith(f"interactions.parquet/part-1.parquet, {message}")
    again = tmp_path / "again"
    again.mkdir()
    (fault,) = faults_of(write_parts(again, broken, rows(0, 4), broken, broken))
    assert fault.startswith(f"interactions.parquet/part-0.parquet, {message}")
    assert fault.endswith(" more in 2 other files")
