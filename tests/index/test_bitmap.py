import faiss
import numpy as np
import pytest
from hypothesis import given, strategies as st

from index.bitmap import RowSet

COUNTS = st.integers(1, 300)


@st.composite
def catalogues(draw):
    """A catalogue's size, and two sets of its rows."""
    count = draw(COUNTS)
    rows = st.lists(st.integers(0, count - 1), max_size=80)
    return count, draw(rows), draw(rows)


def row_set(rows, count):
    return RowSet.from_rows(np.array(rows, dtype=np.int32), count)


@given(catalogues())
def test_a_set_holds_the_rows_it_was_made_from(world):
    count, rows, _ = world
    made = row_set(rows, count)
    assert made.rows().tolist() == sorted(set(rows))
    assert made.count == len(set(rows))
    everything = np.arange(count, dtype=np.int32)
    assert made.contains(everything).tolist() == [row in rows for row in range(count)]


@given(catalogues())
def test_what_is_in_both_and_what_is_in_none(world):
    count, rows, others = world
    made, other = row_set(rows, count), row_set(others, count)
    assert made.intersection(other).rows().tolist() == sorted(set(rows) & set(others))
    assert made.complement().rows().tolist() == sorted(set(range(count)) - set(rows))
    assert made.complement().count == count - made.count
    assert made.without(other.rows()).rows().tolist() == sorted(set(rows) - set(others))


@given(catalogues())
def test_the_index_library_reads_the_same_bits(world):
    count, rows, _ = world
    made = row_set(rows, count)
    selector = faiss.IDSelectorBitmap(made.bits)
    assert [selector.is_member(row) for row in range(count)] == [
        row in rows for row in range(count)
    ]


def test_a_set_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        row_set([1], 10).bits[0] = 0


@pytest.mark.parametrize("row", [-1, 10])
def test_a_row_outside_the_catalogue_is_refused(row):
    with pytest.raises(IndexError, match="of 10"):
        row_set([3, row], 10)


def test_sets_of_two_catalogues_have_nothing_in_common():
    with pytest.raises(ValueError, match="10 and 11 items"):
        row_set([1], 10).intersection(row_set([1], 11))
