"""Small dataset folders for tests: a valid shop, and variations of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

VISUAL = np.arange(8, dtype=np.float32).reshape(4, 2) + 1

USERS = ["ann", "ann", "ann", "ann", "bob", "bob", "bob"]
ITEMS = ["a", "b", "c", "d", "d", "c", "b"]
TIMES = [1, 2, 3, 4, 1, 2, 3]


def interactions(**changes: Any) -> dict[str, Any]:
    """Columns of the interactions file; a change to None removes a column."""
    columns = {"user_id": USERS, "item_id": ITEMS, "timestamp": TIMES} | changes
    return {name: values for name, values in columns.items() if values is not None}


def items(**changes: Any) -> dict[str, Any]:
    """Columns of the items file; a change to None removes a column."""
    columns = {"item_id": ["a", "b", "c", "d"], "title": ["A", "B", "C", "D"]} | changes
    return {name: values for name, values in columns.items() if values is not None}


def write_shop(
    folder: Path,
    taken: dict[str, Any] | str | bytes | None = None,
    sold: dict[str, Any] | str | bytes | None = None,
    **arrays: np.ndarray,
) -> Path:
    """Write a dataset folder: columns as Parquet, text as CSV, bytes as raw .parquet content."""
    _write(folder, "interactions", interactions() if taken is None else taken)
    _write(folder, "items", items() if sold is None else sold)
    for name, values in (arrays or {"visual": VISUAL}).items():
        np.save(folder / f"features_{name}.npy", values)
    return folder


def _write(folder: Path, stem: str, content: dict[str, Any] | str | bytes) -> None:
    if isinstance(content, str):
        (folder / f"{stem}.csv").write_text(content, encoding="utf-8", newline="")
    elif isinstance(content, bytes):
        (folder / f"{stem}.parquet").write_bytes(content)
    else:
        pq.write_table(pa.table(content), folder / f"{stem}.parquet")
