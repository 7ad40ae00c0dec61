"""Search within what is eligible: the best rows for a query, by exact score."""

import numpy as np

from index.id_table import Rows
from index.item_index import Floats, ItemIndex, best_rows, exact_scores, slack
from index.row_set import RowSet

QUICK_ROWS = 8_192  # rows that an exact search may read while others wait


class Search:
    """Finds rows of one bundle."""

    def __init__(self, index: ItemIndex, vectors: Floats) -> None:
        self._index = index
        self._vectors = vectors

    def find(
        self,
        query: Floats,
        count: int,
        excluded: Rows,
        allowed: RowSet | None,
        most_rows: int | None = None,
    ) -> tuple[Rows, Floats] | None:
        """Find the best `count` rows for a query [dim], ordered by exact score, then row.

        excluded   item rows, each once, that must not be returned
        allowed    the only rows that may be; None: all
        most_rows  that an exact search may read; None: as many as there are
        returns    rows and exact scores, fewer than `count` only where fewer are eligible;
                   None if only an exact search over more than `most_rows` would tell
        """
        fetched = min(count + len(excluded) + slack(count), len(self._vectors))
        rows = self._index.search(query, fetched)
        rows = rows[~np.isin(rows, excluded)]
        if allowed is not None:
            rows = rows[allowed.contains(rows)]
        eligible = len(self._vectors) if allowed is None else allowed.count
        if len(rows) < min(count, eligible):
            if most_rows is not None and eligible > most_rows:
                return None
            everything = RowSet.from_rows(excluded, len(self._vectors)).complement()
            rows = (everything.intersection(allowed) if allowed else everything).rows()
        scores = exact_scores(self._vectors, rows, query)
        best = best_rows(rows, scores, count)
        return rows[best], scores[best]
