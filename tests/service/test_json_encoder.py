import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from index.ids import build_id_table
from index.search.query import SearchResult
from service.json_encoder import candidates_of, encode_candidates, json_bytes

ODD_IDS = ['quo"ted', "back\\slash", "line\nbreak", "\x00", "\x1f"]


def result(table, rows, scores):
    return SearchResult(
        table,
        len(rows),
        rows=np.array(rows, dtype=np.int32),
        scores=np.array(scores, dtype=np.float32),
    )


def plain(rows, scores):
    """What a caller should read."""
    return [(row, np.float32(score)) for row, score in zip(rows, scores, strict=True)]


def read(table, written):
    """What a caller reads: rows and scores as float32."""
    told = json.loads(written)
    rows = table.rows_of([one["item_id"] for one in told]).tolist()
    assert all(list(one) == ["item_id", "score"] for one in told)
    return plain(rows, [one["score"] for one in told])


signed = st.floats(width=32, allow_nan=False, allow_infinity=False)
ids = st.text(
    st.characters(min_codepoint=32, exclude_characters='"\\', exclude_categories=["Cs"]),
    min_size=1,
    max_size=12,
)


@given(st.data())
def test_ids_and_scores_come_back_as_they_were(data):
    table = build_id_table(data.draw(st.lists(ids, min_size=1, max_size=8, unique=True)))
    row = st.integers(0, len(table) - 1)
    pairs = data.draw(
        st.lists(st.lists(st.tuples(row, signed), max_size=6), min_size=1, max_size=4)
    )
    asked = [([row for row, _ in own], [score for _, score in own]) for own in pairs]
    written = encode_candidates(table, [result(table, *own) for own in asked])
    assert [read(table, one) for one in written] == [plain(*own) for own in asked]


def test_the_last_id_is_written_however_often_it_is_found():
    table = build_id_table(["00", "0"])
    asked = [([1] * 20, [0.5] * 20)]
    written = encode_candidates(table, [result(table, *own) for own in asked])
    assert [read(table, one) for one in written] == [plain(*own) for own in asked]


def test_the_text_is_json_as_people_read_it():
    table = build_id_table(["a", "long"])
    (written,) = encode_candidates(table, [result(table, [1, 0], [0.5, -0.25])])
    assert written == (b'[{"item_id":"long","score":0.5  },{"item_id":"a","score":-0.25}]')


def test_who_finds_nothing_is_told_an_empty_list():
    table = build_id_table(["a"])
    assert encode_candidates(table, [result(table, [], []), result(table, [0], [0.5])])[0] == b"[]"
    assert encode_candidates(table, [result(table, [], [])]) == [b"[]"]


@pytest.mark.parametrize("odd", ODD_IDS)
def test_an_id_that_json_escapes_is_left_to_another(odd):
    table = build_id_table(["plain", odd])
    assert encode_candidates(table, [result(table, [0], [0.5])]) is not None
    assert encode_candidates(table, [result(table, [0, 1], [0.5, 0.5])]) is None


@given(st.lists(st.floats(width=32), min_size=1, max_size=8))
def test_scores_written_one_by_one_are_the_same_numbers(scores):
    table = build_id_table(["a"])
    own = result(table, [0] * len(scores), scores)
    (written,) = encode_candidates(table, [own])
    assert json.loads(json_bytes(candidates_of(own))) == json.loads(written)


def test_scores_of_any_size_are_written_in_full():
    table = build_id_table(["a"])
    scores = [1e-7, -300.25, 0.5, float("nan")]
    (written,) = encode_candidates(table, [result(table, [0] * 4, scores)])
    assert [one["score"] for one in json.loads(written)] == [1e-7, -300.25, 0.5, None]


def test_an_id_much_longer_than_the_others_is_left_to_another():
    table = build_id_table([*(f"item-{row}" for row in range(200)), "x" * 30_000])
    rows = [*range(200)]
    assert encode_candidates(table, [result(table, rows, [0.5] * 200)]) is not None
    assert encode_candidates(table, [result(table, [*rows, 200], [0.5] * 201)]) is None
