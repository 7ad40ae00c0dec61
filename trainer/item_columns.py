"""The items table in the bundle's words: what is told of an item, what it is filtered by."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index.attributes import build_attributes
from index.errors import ConfigError
from index.filters import SEPARATOR, Column, build_filters
from index.writing import Described
from trainer.config import BundleConfig
from trainer.data.interactions import Rows

ALL = "*"  # in a configuration: every column that is fit
DISTINCT_LIMIT = 1_000  # values of a column that is filtered by without being named
CHUNK = 16_384  # items turned into JSON at once


@dataclass(frozen=True)
class Chosen:
    """The columns that are published."""

    attributes: list[str]
    filters: list[str]


def choose_columns(table: pa.Table, config: BundleConfig) -> Chosen:
    """Choose what to publish; raises ConfigError, naming each column that cannot be."""
    faults: list[str] = []
    attributes = _named(table, "attributes", config.attributes, is_tellable, faults)
    filters = _named(table, "filters", config.filters, is_filterable, faults)
    if faults:
        raise ConfigError("\n".join(faults))
    if ALL in config.attributes:
        attributes += _rest(table, attributes, is_tellable)
    if ALL in config.filters:
        fit = _rest(table, filters, is_filterable)
        filters += [name for name in fit if _has_few_values(table[name])]
    return Chosen(attributes, filters)


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


def _named(
    table: pa.Table,
    key: str,
    names: Sequence[str],
    is_fit: Callable[[pa.DataType], bool],
    faults: list[str],
) -> list[str]:
    """Return the columns named, each once, telling of those that cannot be."""
    fit = _rest(table, [], is_fit)
    named = [name for name in dict.fromkeys(names) if name != ALL]
    for name in named:
        if name in fit:
            continue
        known = name in table.column_names and name != "item_id"
        found = f"is of type {table.schema.field(name).type}" if known else "is no such column"
        faults.append(
            f"bundle.{key}: {name!r} {found} of the items table; fit are "
            f"{', '.join(fit) or 'none'}; name one of these, or leave it out"
        )
    return named


def _rest(
    table: pa.Table, taken: Sequence[str], is_fit: Callable[[pa.DataType], bool]
) -> list[str]:
    return [
        field.name
        for field in table.schema
        if field.name not in ("item_id", *taken)
        and SEPARATOR not in field.name
        and is_fit(field.type)
    ]


def _has_few_values(values: pa.ChunkedArray) -> bool:
    """Tell whether many items share each value: neither prose nor an id."""
    cells = pc.list_flatten(values) if is_list(values.type) else values
    if pc.count_distinct(cells).as_py() > DISTINCT_LIMIT + 2:  # nothing, and empty text
        return False
    column = column_of(values)
    distinct = len(column.values)
    is_an_id = distinct == len(column.rows) > 1
    return distinct <= DISTINCT_LIMIT and not is_an_id


def _text_of(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _items(table: pa.Table, names: Sequence[str]) -> Iterator[Mapping[str, object]]:
    for batch in table.select(names).to_batches(max_chunksize=CHUNK):
        yield from batch.to_pylist()
