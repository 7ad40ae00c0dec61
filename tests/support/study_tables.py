"""A study's table, made by hand; nothing is trained."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def line(method, recall, *, dataset="shop", budget=512.0, seeds=5.0, **further):
    """One line of a study's table."""
    return {
        "dataset": dataset,
        "method": method,
        "kind": "esans" if method.startswith("esans") else "fixed list",
        "budget": budget,
        "temperature": 0.07,
        "seeds": seeds,
        "seeds_wanted": 5.0,
        "recall@50": recall,
        "recall@200": recall + 0.2,
        "recall@50_spread": 0.01 if seeds > 1 else None,
        **further,
    }


def write_table(folder, lines):
    """Write lines as `compare` does: the columns of all together, null where one has none."""
    names = list(dict.fromkeys(name for one in lines for name in one))
    columns = {name: [one.get(name) for one in lines] for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "table.parquet")
    return folder


def frame(lines):
    return pd.DataFrame(lines).astype({"budget": float})
