"""The columns of an items table in the bundle's words: what is told, what is filtered by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index.arrays import Rows
from index.attributes import build_attributes
from index.filters import Column, build_filters
from index.writing import Described

CHUNK = 16_384  # items turned into JSON at once


@dataclass(frozen=True)
class Chosen:
    """The columns that are published."""

    attributes: list[str]
    filters: list[str]


def describe(table: pa.Table, chosen: Chosen) -> Described:
    """Turn the chosen columns into attributes and filters."""
    columns = {name: column_of(table[name]) for name in chosen.filters}
    filters = build_filters(columns)
    counts = dict.fromkeys(chosen.filters, 0) | filters.value_counts()
    return Described(
        names=chosen.attributes,
        attributes=build_attributes(_items(table, chosen.attributes))
        if chosen.attributes
        else None,
        filter_counts=counts,
        filters=filters if len(filters.keys) else None,
    )


def column_of(values: pa.ChunkedArray) -> Column:
    """Return the values of a column, and which items have which; empty text is none."""
    array = values.combine_chunks()
    owners = np.arange(len(array))
    if is_list(array.type):
        owners = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
        array = pc.list_flatten(array)
    coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    texts = [_text_of(value) for value in coded.dictionary.to_pylist()]
    places = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    kept = [place for place, text in enumerate(texts) if text]
    return _kept(texts, kept, owners.astype(np.int32), places)


def _kept(texts: Sequence[str], kept: Sequence[int], owners: Rows, places: Rows) -> Column:
    """Leave out the values that are none, and put others of equal text together."""
    values = list(dict.fromkeys(texts[place] for place in kept))
    new_place = {text: place for place, text in enumerate(values)}
    moved = np.full(len(texts) + 1, -1, dtype=np.int32)  # the last: of null
    for place in kept:
        moved[place] = new_place[texts[place]]
    places = moved[places]
    has_any = places >= 0
    return Column(values, owners[has_any], places[has_any])


def is_filterable(kind: pa.DataType) -> bool:
    """Tell whether a column of this type can be filtered by."""
    if is_list(kind):
        return is_text(kind.value_type)
    return is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def is_tellable(kind: pa.DataType) -> bool:
    """Tell whether a column of this type can be written as JSON."""
    return not (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Tell whether it is text, plain or by a dictionary."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Tell whether each cell is a list."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _text_of(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _items(table: pa.Table, names: Sequence[str]) -> Iterator[Mapping[str, object]]:
    for batch in table.select(names).to_batches(max_chunksize=CHUNK):
        yield from batch.to_pylist()
