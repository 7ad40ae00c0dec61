"""Nearest items by inner product. The one door to FAISS for searching.

Exact (`Flat`) up to 50,000 items, where it is fast enough; above that `IVF...,SQ8`: in speed,
memory and recall under exclusions it beats the graph indexes that were measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.id_table import Rows

Floats = NDArray[np.float32]

FLAT = "Flat"
FLAT_LIMIT = 50_000
WANTED_RECALL = 0.95
TUNED_COUNTS = (100, 200)  # nprobe grows until recall at each of these is reached
REPORTED_COUNTS = (100, 200, 1_000)
FAISS_VERSION: str = faiss.__version__


def slack(count: int) -> int:
    """Return how many rows beyond `count` to fetch, so that the index's rounding costs none."""
    return 16 + count // 4


def exact_scores(vectors: Floats, rows: Rows, query: Floats) -> Floats:
    """Return the inner products of a query [dim] with chosen rows; shape [len(rows)]."""
    return (vectors[rows] @ query).astype(np.float32, copy=False)


def best_rows(rows: Rows, scores: Floats, count: int) -> NDArray[np.intp]:
    """Return positions of the best `count`, ordered by score downwards, then row upwards."""
    if count < len(rows):
        floor = np.partition(scores, len(scores) - count)[len(scores) - count]
        kept = np.flatnonzero(scores >= floor)
        return kept[np.lexsort((rows[kept], -scores[kept]))][:count]
    return np.lexsort((rows, -scores))[:count]


@dataclass(frozen=True)
class ItemIndex:
    """An index over item vectors. Immutable once built or opened: change means a new one."""

    handle: Any

    @property
    def count(self) -> int:
        """Return how many items it holds."""
        return int(self.handle.ntotal)

    @property
    def dim(self) -> int:
        """Return the width of its vectors."""
        return int(self.handle.d)

    @property
    def nprobe(self) -> int | None:
        """Return how many lists a search visits, or None where it is exact."""
        return int(self.handle.nprobe) if isinstance(self.handle, faiss.IndexIVF) else None

    def search(self, query: Floats, count: int) -> Rows:
        """Return up to `count` rows near a query [dim], best first as the index rounds."""
        _, rows = self.handle.search(query.reshape(1, -1), count)
        found: Rows = rows[0][rows[0] >= 0].astype(np.int32)
        return found

    def save(self, path: Path) -> None:
        """Write the index file; nprobe travels inside. Raises OSError if the disk refuses."""
        try:
            faiss.write_index(self.handle, str(path))
        except RuntimeError as error:  # how FAISS tells of it
            raise OSError(f"{path}: cannot be written ({error})") from error

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an index file, memory-mapped (plain IO_FLAG_MMAP would cost 4 ms a query).

        Raises RuntimeError if FAISS cannot read it.
        """
        handle = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        return cls(handle)


@dataclass(frozen=True)
class IndexCard:
    """What was built, and how well it finds what exact search finds."""

    factory: str
    nprobe: int | None
    recall: dict[int, float]  # at count -> share of the exact best `count` that is found


def build_item_index(
    vectors: Floats, queries: Floats, seed: int
) -> tuple[ItemIndex, IndexCard]:
    """Build the index for a catalogue, and tune it on queries like those it will see.

    vectors  [items, dim]    unit rows
    queries  [queries, dim]  from validation histories; at most the first 1,000 are used
    """
    count, dim = vectors.shape
    factory = factory_for(count)
    if factory == FLAT:
        handle: Any = faiss.IndexFlatIP(dim)
    else:
        handle = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        handle.cp.seed = seed
        handle.train(vectors)
    handle.add(vectors)
    return _carded(ItemIndex(handle), factory, vectors, queries)


def extend_item_index(
    saved: Path, factory: str, vectors: Floats, queries: Floats, seed: int
) -> tuple[ItemIndex, IndexCard]:
    """Append to a saved index the last rows of a catalogue, which it lacks, and tune it anew.

    factory  of the saved index; where so many items want another one, that is built

    Raises RuntimeError if FAISS cannot read the file.
    """
    if factory_for(len(vectors)) != factory:
        return build_item_index(vectors, queries, seed)
    handle: Any = faiss.read_index(str(saved))
    handle.add(np.ascontiguousarray(vectors[handle.ntotal :]))
    return _carded(ItemIndex(handle), factory, vectors, queries)


def _carded(
    index: ItemIndex, factory: str, vectors: Floats, queries: Floats
) -> tuple[ItemIndex, IndexCard]:
    if factory == FLAT:
        exact = {n: 1.0 for n in REPORTED_COUNTS if n <= len(vectors)}
        return index, IndexCard(FLAT, None, exact)
    recall = tune(index, vectors, queries[:1_000])
    return index, IndexCard(factory, index.nprobe, recall)


def factory_for(items: int) -> str:
    """Return which index so many items want, in the words of FAISS."""
    return FLAT if items <= FLAT_LIMIT else f"IVF{list_count(items)},SQ8"


def list_count(items: int) -> int:
    """Return the number of IVF lists: the power of two nearest to 4 sqrt(items)."""
    return int(2 ** round(np.log2(4 * np.sqrt(items))))


def tune(index: ItemIndex, vectors: Floats, queries: Floats) -> dict[int, float]:
    """Double nprobe until recall is reached at each of TUNED_COUNTS; return the recall."""
    truth = exact_neighbours(vectors, queries, max(REPORTED_COUNTS))
    recall: dict[int, float] = {}
    nprobe = 1
    while True:
        index.handle.nprobe = nprobe
        recall = measure_recall(index, vectors, queries, truth, TUNED_COUNTS)
        if min(recall.values()) >= WANTED_RECALL or nprobe >= index.handle.nlist:
            return measure_recall(index, vectors, queries, truth, REPORTED_COUNTS)
        nprobe *= 2


def exact_neighbours(vectors: Floats, queries: Floats, count: int) -> NDArray[np.int64]:
    """Return the rows of the best `count` items per query, exactly; shape [queries, count]."""
    _, rows = faiss.knn(queries, vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(rows, dtype=np.int64)


def measure_recall(
    index: ItemIndex,
    vectors: Floats,
    queries: Floats,
    truth: NDArray[np.int64],
    counts: Sequence[int],
) -> dict[int, float]:
    """Return, per count, the share of the exact best that a search with re-scoring returns."""
    found: dict[int, list[float]] = {count: [] for count in counts}
    for query, best in zip(queries, truth, strict=True):
        for count in counts:
            rows = index.search(query, count + slack(count))
            kept = rows[best_rows(rows, exact_scores(vectors, rows, query), count)]
            found[count].append(float(np.isin(best[:count], kept).mean()))
    return {count: float(np.mean(shares)) for count, shares in found.items()}
