"""Handmade tables of a study; nothing is trained."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def line(method, recall, *, dataset="shop", budget=512.0, seeds=5.0, **fields):
    """Build one line of a study's table."""
    return {
        "dataset": dataset,
        "method": method,
        "kind": "esans" if method.startswith("esans") else "fixed list",
        "budget": budget,
        "temperature": 0.07,
        "seeds": seeds,
        "seeds_planned": 5.0,
        "recall@50": recall,
        "recall@200": recall + 0.2,
        "recall@50_spread": 0.01 if seeds > 1 else None,
        **fields,
    }


def write_table(folder, lines):
    """Write lines as `compare` does: all columns, null where a line has no value."""
    names = list(dict.fromkeys(name for fields in lines for name in fields))
    columns = {name: [fields.get(name) for fields in lines] for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "table.parquet")
    return folder


def frame(lines):
    return pd.DataFrame(lines).astype({"budget": float})
