"""What the items' own columns tell a person: a title, and a category to compare with."""

import pyarrow as pa

from index.errors import ConfigError

CATEGORIES = (
    "category",
    "categories",
    "main_category",
    "department",
    "genre",
    "genres",
    "type",
)
TITLES = ("title", "name")


def category_column(attributes: pa.Table, wanted: str | None) -> str | None:
    """Return the column to compare with: the one asked for, else a likely one, else None.

    Raises ConfigError if there is no column of the name asked for.
    """
    names = attributes.column_names
    if wanted is not None and wanted not in names:
        raise ConfigError(
            f"--category: the items have no column {wanted!r}; they have {', '.join(names)}"
        )
    return wanted or _first_of(CATEGORIES, names)


def title_column(attributes: pa.Table) -> str:
    """Return the column that names an item to a person; the id where there is none."""
    return _first_of(TITLES, attributes.column_names) or "item_id"


def first_labels(attributes: pa.Table, column: str) -> list[str | None]:
    """Return each item's label, None where it has none.

    Of several values, in a list or in one text ("Action|War"), the first is taken.
    """
    return [_label_of(value) for value in attributes[column].to_pylist()]


def _label_of(value: object) -> str | None:
    if isinstance(value, list):
        value = value[0] if value else None
    return None if value in (None, "") else str(value).split("|")[0]


def _first_of(likely: tuple[str, ...], names: list[str]) -> str | None:
    by_lower = {name.lower(): name for name in names}
    return next((by_lower[one] for one in likely if one in by_lower), None)
