import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from index.ids import build_id_table
from index.search.query import SearchResult
from service.json_encoder import build_candidates, encode_candidates, encode_json

ODD_IDS = ['quo"ted', "back\\slash", "line\nbreak", "\x00", "\x1f"]


def result(table, rows, scores):
    return SearchResult(
        table,
        len(rows),
        rows=np.array(rows, dtype=np.int32),
        scores=np.array(scores, dtype=np.float32),
    )


def pair_up(rows, scores):
    """Pair rows with float32 scores."""
    return [(row, np.float32(score)) for row, score in zip(rows, scores, strict=True)]


def decode(table, encoded):
    """Decode candidates into pairs of row and float32 score."""
    candidates = json.loads(encoded)
    rows = table.rows_of([candidate["item_id"] for candidate in candidates]).tolist()
    assert all(list(candidate) == ["item_id", "score"] for candidate in candidates)
    return pair_up(rows, [candidate["score"] for candidate in candidates])


signed = st.floats(width=32, allow_nan=False, allow_infinity=False)
ids = st.text(
    st.characters(min_codepoint=32, exclude_characters='"\\', exclude_categories=["Cs"]),
    min_size=1,
    max_size=12,
)


@given(st.data())
def test_encode_candidates_round_trips_ids_and_scores(data):
    table = build_id_table(data.draw(st.lists(ids, min_size=1, max_size=8, unique=True)))
    row = st.integers(0, len(table) - 1)
    pairs = data.draw(
        st.lists(st.lists(st.tuples(row, signed), max_size=6), min_size=1, max_size=4)
    )
    expected = [([row for row, _ in pair], [score for _, score in pair]) for pair in pairs]
    encoded = encode_candidates(table, [result(table, *pair) for pair in expected])
    assert [decode(table, candidates) for candidates in encoded] == [
        pair_up(*pair) for pair in expected
    ]


def test_encode_candidates_repeats_last_id():
    table = build_id_table(["00", "0"])
    expected = [([1] * 20, [0.5] * 20)]
    encoded = encode_candidates(table, [result(table, *pair) for pair in expected])
    assert [decode(table, candidates) for candidates in encoded] == [
        pair_up(*pair) for pair in expected
    ]


def test_encode_candidates_pads_scores_with_spaces():
    table = build_id_table(["a", "long"])
    (encoded,) = encode_candidates(table, [result(table, [1, 0], [0.5, -0.25])])
    assert encoded == (b'[{"item_id":"long","score":0.5  },{"item_id":"a","score":-0.25}]')


def test_encode_candidates_without_rows_is_empty_list():
    table = build_id_table(["a"])
    assert encode_candidates(table, [result(table, [], []), result(table, [0], [0.5])])[0] == b"[]"
    assert encode_candidates(table, [result(table, [], [])]) == [b"[]"]


@pytest.mark.parametrize("odd", ODD_IDS)
def test_encode_candidates_with_escaped_id_returns_none(odd):
    table = build_id_table(["plain", odd])
    assert encode_candidates(table, [result(table, [0], [0.5])]) is not None
    assert encode_candidates(table, [result(table, [0, 1], [0.5, 0.5])]) is None


@given(st.lists(st.floats(width=32), min_size=1, max_size=8))
def test_build_candidates_returns_same_scores(scores):
    table = build_id_table(["a"])
    expected = result(table, [0] * len(scores), scores)
    (encoded,) = encode_candidates(table, [expected])
    assert json.loads(encode_json(build_candidates(expected))) == json.loads(encoded)


def test_encode_candidates_keeps_score_precision():
    table = build_id_table(["a"])
    scores = [1e-7, -300.25, 0.5, float("nan")]
    (encoded,) = encode_candidates(table, [result(table, [0] * 4, scores)])
    assert [candidate["score"] for candidate in json.loads(encoded)] == [1e-7, -300.25, 0.5, None]


def test_encode_candidates_with_long_outlier_id_returns_none():
    table = build_id_table([*(f"item-{row}" for row in range(200)), "x" * 30_000])
    rows = [*range(200)]
    assert encode_candidates(table, [result(table, rows, [0.5] * 200)]) is not None
    assert encode_candidates(table, [result(table, [*rows, 200], [0.5] * 201)]) is None
