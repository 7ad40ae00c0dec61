"""Values of a column that cannot become Python objects, and the conversions that avoid them."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

UNREADABLE = (pa.ArrowException, ValueError, OverflowError)  # what `as_py` raises


def to_microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cut nanoseconds to microseconds, the precision of Python; leave other columns unchanged."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    coarser = {pa.duration("ns"): pa.duration("us"), pa.time64("ns"): pa.time64("us")}
    return column.cast(coarser[kind], safe=False) if kind in coarser else column


def is_valid(column: pa.ChunkedArray) -> bool:
    """Return whether all text of a column is UTF-8, and its other values are well-formed."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def unreadable_rows(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the rows whose value cannot become a Python object."""
    try:
        for chunk in column.chunks:
            chunk.to_pylist()
    except UNREADABLE:
        return np.flatnonzero([not _is_readable(value) for value in column])
    return np.empty(0, dtype=np.int64)


def _is_readable(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except UNREADABLE:
        return False
    return True
