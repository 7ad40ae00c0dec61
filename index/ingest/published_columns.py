"""Columns that a bundle publishes: attributes and filters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index.ingest.tables import is_list, is_text
from index.metadata import Column, ItemMetadata, build_attributes, build_filters

CHUNK = 16_384  # items converted to JSON at once


@dataclass(frozen=True)
class PublishedColumns:
    """Names of the published columns."""

    attributes: list[str]
    filters: list[str]


def item_metadata(table: pa.Table, chosen: PublishedColumns) -> ItemMetadata:
    """Build attributes and filters from the chosen columns."""
    names = chosen.attributes
    filters = build_filters({name: build_column(table[name]) for name in chosen.filters})
    return ItemMetadata(
        names=names,
        attributes=build_attributes(_items(table, names)) if names else None,
        filter_counts=dict.fromkeys(chosen.filters, 0) | filters.value_counts(),
        filters=filters if len(filters.keys) else None,
    )


def build_column(values: pa.ChunkedArray) -> Column:
    """Build (row, value) pairs from a column; empty text is no value."""
    array = values.combine_chunks()
    owners = np.arange(len(array))
    if is_list(array.type):
        owners = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
        array = pc.list_flatten(array)
    coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    texts = [_text_of(value) for value in coded.dictionary.to_pylist()]
    distinct = list(dict.fromkeys(text for text in texts if text))  # values may share a text
    index_of = {text: value_index for value_index, text in enumerate(distinct)}
    moved = np.array([*(index_of.get(text, -1) for text in texts), -1], dtype=np.int32)
    indices = moved[coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)]
    has_any = indices >= 0
    return Column(distinct, owners[has_any].astype(np.int32), indices[has_any])


def is_filterable(kind: pa.DataType) -> bool:
    """Return whether a column of this type can be a filter."""
    if is_list(kind):
        return is_text(kind.value_type)
    return is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def is_json_serializable(kind: pa.DataType) -> bool:
    """Return whether a column of this type can be written as JSON."""
    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    return not any(is_kind(kind) for is_kind in tests)


def _text_of(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _items(table: pa.Table, names: Sequence[str]) -> Iterator[Mapping[str, object]]:
    for batch in table.select(names).to_batches(max_chunksize=CHUNK):
        yield from batch.to_pylist()
