"""Read CSV tables: all columns are text, or lists of text if the header says so."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

BLOCK_BYTES = 1 << 20  # read at once; the limit of one row
LIST_SUFFIX, LIST_SEPARATOR = "[]", "|"  # a column `tags[]` holds lists such as `red|blue`
OTHER_SEPARATORS = ";\t|"
UTF_8 = "convert the file to UTF-8, for example with `iconv -f LATIN1 -t UTF-8`"

csv.field_size_limit(BLOCK_BYTES)


class CsvError(ValueError):
    """The file is not a CSV as expected; the message holds finding, expectation and remedy."""


def read_csv(path: Path) -> pa.Table:
    """Read a CSV; text such as "NA" and "007" is kept, and UTF-8 is not validated.

    Raises:
        CsvError, csv.Error, OSError, pa.ArrowException: The file cannot be read.
    """
    header = _read_header(path)
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(
                use_threads=False,  # otherwise errors lack the row number
                block_size=BLOCK_BYTES,
            ),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                check_utf8=False, column_types=dict.fromkeys(header, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        is_long = "straddling" in str(error) or sum(map(len, header)) + len(header) > BLOCK_BYTES
        if is_long:
            raise CsvError(
                f"found a row of more than {BLOCK_BYTES >> 20} MiB; expected short rows; close "
                "the quote that is left open, or shorten the row"
            ) from error
        if "Empty CSV" in str(error):
            raise CsvError(
                "found no rows; expected a header and at least one row; fill the table"
            ) from error
        raise
    return _split_lists(table)


def line_numbers(path: Path) -> NDArray[np.int64]:
    """Return the line of the file where each row starts, from 1; [rows]."""
    starts, end = [], 0
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        for row in reader:
            if row:  # blank lines are no rows
                starts.append(end + 1)
            end = reader.line_num  # a quoted cell may span lines
    return np.array(starts[1:], dtype=np.int64)


def _read_header(path: Path) -> list[str]:
    """Read the column names; raises CsvError for another encoding or separator."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        header = next(csv.reader(text), [])
    if any("\ufffd" in name for name in header):
        raise CsvError(f"found a header that is not UTF-8; expected UTF-8; {UTF_8}")
    separator = next((mark for mark in OTHER_SEPARATORS if mark in "".join(header)), "")
    if len(header) == 1 and separator:
        raise CsvError(
            f"found columns separated by {separator!r}; expected commas; write it with commas"
        )
    return header


def _split_lists(table: pa.Table) -> pa.Table:
    """Turn columns named `NAME[]` into columns `NAME` of lists; an empty cell is null."""
    for number, name in enumerate(table.column_names):
        if name.endswith(LIST_SUFFIX):
            cells = table.column(number)
            lists = pc.split_pattern(cells, LIST_SEPARATOR)
            lists = pc.if_else(pc.equal(cells, ""), pa.scalar(None, lists.type), lists)
            table = table.set_column(number, name.removesuffix(LIST_SUFFIX), lists)
    return table
