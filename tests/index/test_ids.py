import numpy as np
import pytest
from hypothesis import given, strategies as st

from index.errors import BundleError
from index.ids import (
    BATCH,
    IdTable,
    build_id_table,
    digest_of,
    hash_ids,
    open_id_table,
)

IDS = ["item-1", "007", "7", "κόσμος", "品", "🦊", "a b", "é", "e\u0301", "x" * 512]


def test_every_id_leads_to_its_row_and_back():
    table = build_id_table(IDS)
    assert table.rows_of(IDS).tolist() == list(range(len(IDS)))
    assert table.ids_of(range(len(IDS))) == IDS


def test_ids_come_in_any_order_and_any_number():
    for ids in (IDS, ["item-1", "item-20", "7"]):
        table = build_id_table(ids)
        assert table.ids_of(np.array([2, 0, 2], dtype=np.int32)) == [ids[2], ids[0], ids[2]]
        assert table.ids_of([]) == []


def test_very_many_ids_come_in_their_order():
    ids = [f"item-{row}" for row in range(100)] + ["caf\u00e9"]
    rows = np.random.default_rng(1).integers(0, len(ids), 2 * BATCH + 1)
    assert build_id_table(ids).ids_of(rows) == [ids[row] for row in rows]


def test_hashes_come_in_row_order_too():
    assert (build_id_table(IDS).hashes_by_row() == hash_ids(one.encode() for one in IDS)).all()


def test_each_of_very_many_ids_leads_to_its_row():
    ids = [f"item-{row}" for row in range(5_000)]
    table = build_id_table(ids)
    strangers = [f"user-{row}" for row in range(5_000)]
    assert table.rows_of([*ids, *strangers]).tolist() == [*range(5_000), *[-1] * 5_000]


def test_a_saved_table_answers_as_before(tmp_path):
    build_id_table(IDS).save(tmp_path, "item_ids")
    table = open_id_table(tmp_path, "item_ids")
    assert table.rows_of([*IDS[::-1], "nobody"]).tolist() == [*range(len(IDS))[::-1], -1]


@pytest.mark.parametrize("stranger", ["", "item-", "item-11", "07", "ITEM-1", "\ud800", "x" * 513])
def test_an_unknown_id_has_no_row(stranger):
    assert build_id_table(IDS).row_of(stranger) == -1


def test_an_unknown_id_with_the_hash_of_a_known_one_is_still_unknown():
    known = build_id_table(["known"])
    collided = IdTable(known.blob, known.offsets, hash_ids([b"stranger"]), known.rows)
    assert collided.row_of("stranger") == -1


def test_two_equal_ids_are_refused_with_both_rows():
    with pytest.raises(BundleError, match=r"'b' \(row 1\) and 'b' \(row 3\).*distinct"):
        build_id_table(["a", "b", "c", "b"])


def test_a_table_of_no_ids_knows_none(tmp_path):
    build_id_table([]).save(tmp_path, "user_ids")
    table = open_id_table(tmp_path, "user_ids")
    assert (len(table), table.row_of("anyone")) == (0, -1)


def test_the_digest_tells_where_one_id_ends():
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(st.data())
def test_all_ids_are_read_as_they_were_written(data):
    """However long one of them is, wherever it stands, however often it is asked for."""
    ids = data.draw(st.lists(texts | st.just("x" * 3_000), min_size=1, max_size=30, unique=True))
    if data.draw(st.booleans()):  # all of one length
        ids = [f"{row:09}é" for row in range(len(ids))]
    rows = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=60))
    table = build_id_table(ids)
    assert table.ids_of(rows) == [ids[row] for row in rows]
    assert table.rows_of([ids[row] for row in rows]).tolist() == rows


def test_a_long_id_does_not_make_the_others_wide():
    table = build_id_table([*(f"item-{row}" for row in range(1_000)), "x" * 30_000, "last"])
    assert table.aligned(range(1_000)).window.nbytes == 8_000
    assert table.aligned(range(1_002)) is None


def test_ids_of_one_length_stand_without_gaps():
    aligned = build_id_table(["aa", "bb", "cc"]).aligned([2, 0])
    assert (aligned.joined(), aligned.is_even) == (b"ccaa", True)
