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
def test_from_rows_contains_exactly_these_rows(world):
    count, rows, _ = world
    made = row_set(rows, count)
    assert made.rows().tolist() == sorted(set(rows))
    assert made.count == len(set(rows))
    everything = np.arange(count, dtype=np.int32)
    assert made.contains(everything).tolist() == [row in rows for row in range(count)]


@given(catalogues())
def test_set_operations_match_python_sets(world):
    count, rows, others = world
    made, other = row_set(rows, count), row_set(others, count)
    assert made.intersection(other).rows().tolist() == sorted(set(rows) & set(others))
    assert made.complement().rows().tolist() == sorted(set(range(count)) - set(rows))
    assert made.complement().count == count - made.count
    assert made.difference(other.rows()).rows().tolist() == sorted(set(rows) - set(others))


@given(catalogues())
def test_bits_match_faiss_selector(world):
    count, rows, _ = world
    made = row_set(rows, count)
    selector = faiss.IDSelectorBitmap(made.bits)
    assert [selector.is_member(row) for row in range(count)] == [
        row in rows for row in range(count)
    ]


def test_row_set_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        row_set([1], 10).bits[0] = 0


@pytest.mark.parametrize("row", [-1, 10])
def test_from_rows_out_of_range_raises(row):
    with pytest.raises(IndexError, match="of 10"):
        row_set([3, row], 10)


def test_intersection_of_different_sizes_raises():
    with pytest.raises(ValueError, match="10 and 11 items"):
        row_set([1], 10).intersection(row_set([1], 11))
