from itertools import chain

import pytest
from hypothesis import given, strategies as st

from service.parts import MOST_IDS, MOST_QUESTIONS, parts_of


@pytest.mark.parametrize(
    ("id_counts", "ends"),
    [
        ([0] * 3, [3]),
        ([1] * 40, [16, 32, 40]),
        ([20_000, 20_000, 1], [1, 2, 3]),
        ([1_000, 1_000, 1], [2, 3]),
        ([1, 20_000, 1], [1, 2, 3]),
    ],
)
def test_a_part_is_full_of_questions_or_of_ids(id_counts, ends):
    assert [part.stop for part in parts_of(id_counts)] == ends


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=256))
def test_parts_hold_every_question_once_and_in_order(id_counts):
    places = list(range(len(id_counts)))
    parts = [places[part] for part in parts_of(id_counts)]
    assert list(chain(*parts)) == places
    assert all(0 < len(part) <= MOST_QUESTIONS for part in parts)
    assert all(len(p) == 1 or sum(id_counts[n] for n in p) <= MOST_IDS for p in parts)
