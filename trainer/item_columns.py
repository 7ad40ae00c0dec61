"""Which columns of the items table are published: those that are named, or all fit ones."""

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from index.errors import ConfigError
from index.ingest.tables import PublishedColumns, column_of, is_filterable, is_list, is_tellable
from index.metadata import SEPARATOR
from trainer.config import BundleConfig

ALL = "*"  # in a configuration: every column that is fit
DISTINCT_LIMIT = 1_000  # values of a column that is filtered by without being named


def choose_columns(table: pa.Table, config: BundleConfig) -> PublishedColumns:
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
    return PublishedColumns(attributes, filters)


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
