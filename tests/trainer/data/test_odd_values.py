"""Values and files that cannot be read are reported with their location."""

import json
import zipfile

import numpy as np
import pyarrow as pa
import pytest

from index.errors import DatasetError
from index.ingest.published_columns import item_metadata
from tests.support.training_shops import (
    ITEMS,
    TIMES,
    USERS,
    VISUAL,
    interactions,
    items,
    write_shop,
)
from trainer.bundle_export import choose_columns
from trainer.config import BundleConfig
from trainer.data.dataset import load_dataset

LATIN_1 = "zoë".encode("latin-1")
CSV = "user_id,item_id,timestamp\n" + "".join(
    f"{user},{item},{time}\n" for user, item, time in zip(USERS, ITEMS, TIMES, strict=True)
)


def text_of(*values):
    """Text column of these bytes, which need not be UTF-8."""
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())


def faults_of(folder):
    with pytest.raises(DatasetError) as caught:
        load_dataset(folder)
    return caught.value.faults


def write_csv(folder, stem, content):
    (write_shop(folder) / f"{stem}.parquet").unlink()
    (folder / f"{stem}.csv").write_bytes(content)
    return folder


def attributes_of(folder):
    """Attributes of the items as the bundle publishes them."""
    table = load_dataset(folder).attributes
    published = item_metadata(table, choose_columns(table, BundleConfig())).attributes
    return [json.loads(text) for text in published.get(np.arange(len(table)))]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (pa.timestamp("ns"), "1970-01-01 00:00:00.000001"),
        (pa.timestamp("ns", "UTC"), "1970-01-01 00:00:00.000001+00:00"),
        (pa.duration("ns"), "0:00:00.000001"),
        (pa.time64("ns"), "00:00:00.000001"),
    ],
)
def test_nanoseconds_become_microseconds(tmp_path, kind, text):
    made = pa.array([1_001, 0, 0, None], pa.int64()).cast(kind)
    first, *_, last = attributes_of(write_shop(tmp_path, sold=items(made=made)))
    assert first["made"] == text
    assert "made" not in last


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2**61, 3, 4], pa.timestamp("us")),
        pa.array([None, 5, None, None], pa.timestamp("us", "Mars/Phobos")),
        pa.array([1, 2**30, 3, 4], pa.date32()),
        pa.array([1, 2**62, 3, 4], pa.duration("s")),
        pa.array([[1], [2**61], [], None], pa.list_(pa.timestamp("us"))),
    ],
)
def test_unrepresentable_time_is_reported(tmp_path, values):
    (fault,) = faults_of(write_shop(tmp_path, sold=items(made=values)))
    assert fault.startswith("items.parquet, column made, row 1: found a ")


@pytest.mark.parametrize(
    ("table", "column", "values"),
    [
        ("items", "item_id", text_of(b"a", LATIN_1, b"c", b"d")),
        ("items", "title", text_of(b"a", LATIN_1, b"c", b"d")),
        ("items", "title", text_of(b"a", LATIN_1, b"c", b"d").dictionary_encode()),
        ("items", "tags", pa.ListArray.from_arrays([0, 1, 2, 2, 2], text_of(b"a", LATIN_1))),
        ("interactions", "user_id", text_of(b"a", LATIN_1, *[b"c"] * 5)),
        ("interactions", "device", text_of(b"a", LATIN_1, *[b"c"] * 5)),
    ],
)
def test_parquet_text_that_is_not_utf8_is_reported(tmp_path, table, column, values):
    changed = {column: values}
    taken = interactions(**changed) if table == "interactions" else None
    sold = items(**changed) if table == "items" else None
    (fault,) = faults_of(write_shop(tmp_path, taken, sold))
    assert fault.startswith(f"{table}.parquet, column {column}, row 1: found text that is not UTF")


def test_csv_text_that_is_not_utf8_is_reported(tmp_path):
    content = (CSV * 2_000).encode() + LATIN_1 + b",a,1\n"
    (fault,) = faults_of(write_csv(tmp_path, "interactions", content))
    line = 2_000 * len(CSV.splitlines()) + 1
    assert fault.startswith(f"interactions.csv, column user_id, line {line}: ")
    assert "iconv" in fault


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("user_id,item_id,prénom\nann,a,x\n".encode("latin-1"), "iconv"),
        (CSV.encode("utf-16"), "iconv"),
        (CSV.replace(",", ";").encode(), "';'; expected commas"),
        (CSV.replace(",", "\t").encode(), r"'\t'; expected commas"),
        ((CSV + '"' + "x" * 3_000_000).encode(), "close the quote"),
        (",".join(f"c{number}" for number in range(200_000)).encode(), "shorten the row"),
        (b"", "found no rows"),
        (b"user_id,item_id", "found no rows"),
    ],
)
def test_csv_of_another_dialect_is_reported_once(tmp_path, content, hint):
    (fault,) = faults_of(write_csv(tmp_path, "interactions", content))
    assert fault.startswith("interactions.csv: ")
    assert hint in fault


@pytest.mark.parametrize("cell", ['5" screen', 'screen"', '"5"" screen"', '"two\r\nlines"'])
def test_csv_quotes_do_not_shift_line_numbers(tmp_path, cell):
    content = f"user_id,note,item_id\nann,{cell},a\n\nann,,x\n"
    (fault,) = faults_of(write_csv(tmp_path, "interactions", content.encode()))
    line = content.splitlines().index("ann,,x") + 1
    assert fault.startswith(f"interactions.csv, column item_id, line {line}: 'x'")


def test_csv_list_columns_are_split(tmp_path):
    content = b"item_id,tags[]\na,red|blue\nb,\nc,blue\nd,red\n"
    table = load_dataset(write_csv(tmp_path, "items", content)).attributes
    assert table["tags"].to_pylist() == [["red", "blue"], None, ["blue"], ["red"]]


def test_csv_timestamps_with_nanoseconds_are_read(tmp_path):
    rows = "".join(
        f"ann,{item},2026-01-0{9 - day} 10:00:00.123456789\n" for day, item in enumerate("abc")
    )
    data = load_dataset(
        write_csv(tmp_path, "interactions", f"user_id,item_id,timestamp\n{rows}".encode())
    )
    assert data.interactions.item_rows.tolist() == [2, 1, 0]


@pytest.mark.parametrize("name", ["userid", "User_ID", "user id"])
def test_similar_column_is_suggested(tmp_path, name):
    (fault,) = faults_of(write_shop(tmp_path, interactions(user_id=None, **{name: USERS})))
    assert fault.endswith(f"did you mean {name}?")


def test_similar_file_is_suggested(tmp_path):
    (write_shop(tmp_path) / "items.parquet").rename(tmp_path / "item.parquet")
    (tmp_path / "features_visual.npy").unlink()
    (fault,) = faults_of(tmp_path)
    assert fault.endswith("did you mean item.parquet?")


def test_many_columns_are_not_all_listed(tmp_path):
    wide = {f"c{number}": [1] * 7 for number in range(1_000)}
    (fault, _) = faults_of(write_shop(tmp_path, wide))
    assert "and 980 more" in fault


def npy(shape, descr="<f4"):
    """Bytes of a .npy file with this header and a little data."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04",
        npy((10**12, 2)),
        npy((10**30, 2)),
        npy((True, 2)),
        npy((4, 2)).replace(b"}", b"("),
    ],
)
def test_damaged_array_is_reported(tmp_path, content):
    (write_shop(tmp_path) / "features_visual.npy").write_bytes(content)
    (fault,) = faults_of(tmp_path)
    assert fault.startswith("features_visual.npy: cannot be read (")


def test_archive_of_arrays_is_reported(tmp_path):
    with (write_shop(tmp_path) / "features_visual.npy").open("wb") as file:
        np.savez(file, visual=VISUAL)
    assert faults_of(tmp_path)[0].startswith("features_visual.npy: found an archive of arrays")
    with zipfile.ZipFile(tmp_path / "features_visual.npy", "w"):
        pass  # an empty archive
    assert faults_of(tmp_path)[0].startswith("features_visual.npy: found an archive of arrays")


def test_pickled_array_is_reported_with_a_remedy(tmp_path):
    rows = np.array([[1.0, 2.0], [3.0], [4.0], [5.0]], dtype=object)
    (fault,) = faults_of(write_shop(tmp_path, visual=rows))
    assert "found pickled objects; expected numbers" in fault
    assert "astype" in fault


def test_split_column_of_odd_times_is_reported(tmp_path):
    times = pa.array([2**61] * 7, pa.timestamp("us"))
    (fault,) = faults_of(write_shop(tmp_path, interactions(split=times)))
    assert "column split, row 0: an unreadable timestamp[us]" in fault


def test_dictionary_timestamps_define_the_order(tmp_path):
    times = pa.array([3, 2, 1], pa.timestamp("s")).dictionary_encode()
    taken = {"user_id": ["ann"] * 3, "item_id": ["a", "b", "c"], "timestamp": times}
    data = load_dataset(write_shop(tmp_path, taken))
    assert data.interactions.item_rows.tolist() == [2, 1, 0]


def test_star_accepts_dictionary_and_list_columns(tmp_path):
    colours = pa.array(["red", None, "red", "blue"]).dictionary_encode()
    tags = pa.array([["x"], ["y"], ["x"], None], pa.list_(pa.dictionary(pa.int32(), pa.string())))
    data = load_dataset(write_shop(tmp_path, sold=items(colour=colours, tags=tags)))
    assert choose_columns(data.attributes, BundleConfig()).filters == ["colour", "tags"]
