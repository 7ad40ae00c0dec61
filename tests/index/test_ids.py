import numpy as np
import pytest
from hypothesis import given, strategies as st

from index.errors import BundleError
from index.ids import BATCH, IdTable, build_id_table, digest_ids, hash_ids, open_id_table

IDS = ["item-1", "007", "7", "κόσμος", "品", "🦊", "a b", "é", "e\u0301", "x" * 512]


def test_rows_of_and_ids_of_are_inverse():
    table = build_id_table(IDS)
    assert table.rows_of(IDS).tolist() == list(range(len(IDS)))
    assert table.ids_of(range(len(IDS))) == IDS


def test_ids_of_keeps_order_and_duplicates():
    for ids in (IDS, ["item-1", "item-20", "7"]):
        table = build_id_table(ids)
        assert table.ids_of(np.array([2, 0, 2], dtype=np.int32)) == [ids[2], ids[0], ids[2]]
        assert table.ids_of([]) == []


def test_ids_of_more_than_batch_keeps_order():
    ids = [f"item-{row}" for row in range(100)] + ["caf\u00e9"]
    rows = np.random.default_rng(1).integers(0, len(ids), 2 * BATCH + 1)
    assert build_id_table(ids).ids_of(rows) == [ids[row] for row in rows]


def test_hashes_by_row_are_in_row_order():
    assert (
        build_id_table(IDS).hashes_by_row() == hash_ids(public_id.encode() for public_id in IDS)
    ).all()


def test_has_all_takes_hashes_in_any_order():
    table = build_id_table(IDS)
    hashes = table.hashes_by_row()
    assert table.has_all(hashes)
    assert table.has_all(hashes[[7, 2, 2]])
    assert table.has_all(hashes[:0])
    for stranger in (0, int(hashes[3]) ^ 1, 2**64 - 1):
        assert not table.has_all(np.append(hashes, np.uint64(stranger)))


def test_rows_of_many_ids():
    ids = [f"item-{row}" for row in range(5_000)]
    table = build_id_table(ids)
    strangers = [f"user-{row}" for row in range(5_000)]
    assert table.rows_of([*ids, *strangers]).tolist() == [*range(5_000), *[-1] * 5_000]


def test_save_open_keeps_rows(tmp_path):
    build_id_table(IDS).save(tmp_path, "item_ids")
    table = open_id_table(tmp_path, "item_ids")
    assert table.rows_of([*IDS[::-1], "unknown"]).tolist() == [*range(len(IDS))[::-1], -1]


@pytest.mark.parametrize("stranger", ["", "item-", "item-11", "07", "ITEM-1", "\ud800", "x" * 513])
def test_row_of_unknown_id_is_negative(stranger):
    assert build_id_table(IDS).row_of(stranger) == -1


def test_row_of_hash_collision_is_negative():
    known = build_id_table(["known"])
    collided = IdTable(known.blob, known.offsets, hash_ids([b"stranger"]), known.rows)
    assert collided.row_of("stranger") == -1


def test_build_equal_ids_names_both_rows():
    with pytest.raises(BundleError, match=r"'b' \(row 1\) and 'b' \(row 3\).*distinct"):
        build_id_table(["a", "b", "c", "b"])


def test_empty_table_has_no_rows(tmp_path):
    build_id_table([]).save(tmp_path, "user_ids")
    table = open_id_table(tmp_path, "user_ids")
    assert (len(table), table.row_of("anyone")) == (0, -1)


def test_digest_ids_depends_on_id_boundaries():
    assert digest_ids(["ab", "c"]) != digest_ids(["a", "bc"])


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(st.data())
def test_ids_round_trip_for_any_text(data):
    """For any length, position and number of repetitions."""
    ids = data.draw(st.lists(texts | st.just("x" * 3_000), min_size=1, max_size=30, unique=True))
    if data.draw(st.booleans()):  # equal lengths
        ids = [f"{row:09}é" for row in range(len(ids))]
    rows = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=60))
    table = build_id_table(ids)
    assert table.ids_of(rows) == [ids[row] for row in rows]
    assert table.rows_of([ids[row] for row in rows]).tolist() == rows


def test_pad_long_id_does_not_widen_others():
    table = build_id_table([*(f"item-{row}" for row in range(1_000)), "x" * 30_000, "last"])
    assert table.pad(range(1_000)).window.nbytes == 8_000
    assert table.pad(range(1_002)) is None


def test_pad_equal_lengths_has_no_gaps():
    aligned = build_id_table(["aa", "bb", "cc"]).pad([2, 0])
    assert (aligned.to_bytes(), aligned.has_equal_lengths) == (b"ccaa", True)
