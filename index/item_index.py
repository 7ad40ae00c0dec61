"""Nearest items by inner product. The one door to FAISS for searching."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows
from index.centres import Centres, Effort, Look, Visits
from index.searching.row_set import RowSet

Floats = NDArray[np.float32]

CHUNK = 8_192  # vectors added at once
BLOCK = 1 << 24  # bytes written at once
LIST_BITS = 32  # of a place in FAISS's direct map: the list, then the place in it
FAISS_VERSION: str = faiss.__version__
UNTYPED: Any = faiss  # for calls that its own types do not describe


class Near(NamedTuple):
    """The rows near each query, in no order.

    rows    [queries, count]  -1 where there are fewer
    scores  [queries, count]  as the index rounds
    """

    rows: Rows
    scores: Floats


@dataclass(frozen=True)
class ItemIndex:
    """An index over item vectors. Immutable once built or opened: change means a new one.

    centres  by which a query chooses its lists; None: it visits `nprobe`, or there are none
    """

    handle: Any
    centres: Centres | None = None

    def __post_init__(self) -> None:
        if self.list_count > 1:  # what was found is ordered by others, in less time
            self.handle.parallel_mode = self.handle.PARALLEL_MODE_NO_HEAP_INIT

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
        """Return how many lists a search visits, on average; None where it is exact."""
        return int(self.handle.nprobe) if isinstance(self.handle, faiss.IndexIVF) else None

    @property
    def list_count(self) -> int:
        """Return how many lists the items stand in: 1 where a search is exact."""
        return int(self.handle.nlist) if isinstance(self.handle, faiss.IndexIVF) else 1

    @property
    def can_narrow(self) -> bool:
        """Return whether `narrowed` can be asked for."""
        return isinstance(self.handle, faiss.IndexIVFScalarQuantizer)

    @property
    def size_bytes(self) -> int:
        """Return about how much memory it takes: codes and row numbers."""
        code_bytes = self.handle.code_size if self.list_count > 1 else 4 * self.dim
        return int(self.count * (code_bytes + 8) + self.list_count * self.dim * 4)

    def search(
        self,
        queries: Floats,
        count: int,
        effort: Effort = Effort(),  # noqa: B008  # it never changes
        eligible: RowSet | None = None,
    ) -> Near:
        """Return `count` rows near each query [queries, dim].

        eligible  the only rows that may be returned; None: all

        What a query finds does not depend on the others, but for a list on the brink, whose
        score may be rounded otherwise; by `nprobe` so from twenty queries on.
        """
        rows = np.full((len(queries), count), -1, dtype=np.int64)
        scores = np.full(rows.shape, -np.inf, dtype=np.float32)
        if self.centres is not None:
            visits = self.centres.near(queries, effort)
            self._visit(visits, queries, eligible, rows, scores)
        else:
            params = parameters(self._lists_at(effort), eligible)
            self.handle.search(queries, count, D=scores, I=rows, params=params)
        return Near(rows.astype(np.int32), scores)

    def _lists_at(self, effort: Effort) -> int | None:
        """Return how many lists every query visits; None where there are none."""
        if self.nprobe is None:
            return None
        most = min(effort.most or self.list_count, self.list_count)
        return int(max(1, min(max(self.nprobe * effort.depth, effort.least), most)))

    def _visit(
        self,
        visits: Visits,
        queries: Floats,
        eligible: RowSet | None,
        rows: NDArray[np.int64],
        scores: Floats,
    ) -> None:
        """Search lists that are chosen already; the answer goes into `rows` and `scores`."""
        arrays = (np.ascontiguousarray(queries), visits.lists, visits.scores, scores, rows)
        asked, *others = [faiss.swig_ptr(one) for one in arrays]
        params = parameters(visits.lists.shape[1], eligible)
        self.handle.search_preassigned_c(
            len(queries), asked, rows.shape[1], *others, False, params
        )

    def looking(self, looks: Sequence[Look]) -> "ItemIndex":
        """Return the same index, whose queries look so far; none: they visit `nprobe` lists."""
        if not looks or self.list_count == 1:
            return replace(self, centres=None)
        return replace(
            self, centres=Centres.of(self.centre_vectors(), self.list_sizes(), looks)
        )

    def list_sizes(self) -> NDArray[np.int64]:
        """Return how many rows stand in each list."""
        size_of = self.handle.invlists.list_size
        return np.array([size_of(place) for place in range(self.list_count)], dtype=np.int64)

    def centre_vectors(self) -> Floats:
        """Return the centre of each list; [lists, dim]."""
        quantizer = faiss.downcast_index(self.handle.quantizer)
        vectors: Floats = quantizer.reconstruct_n(0, self.list_count)
        return vectors

    def lists_of_rows(self) -> Rows:
        """Return the list that each row stands in; [count]. Searches may go on meanwhile."""
        self.handle.make_direct_map()
        places: NDArray[np.int64] = faiss.vector_to_array(self.handle.direct_map.array)
        self.handle.set_direct_map_type(UNTYPED.DirectMap.NoMap)
        UNTYPED.Int64Vector().swap(self.handle.direct_map.array)  # else its memory stays
        return (places >> LIST_BITS).astype(np.int32)

    def narrowed(self, rows: Rows, vectors: Floats, lists: Rows) -> "ItemIndex":
        """Return an index over these rows alone, in the lists that hold any of them.

        rows     ascending, and found under these numbers
        vectors  [items, dim]
        lists    [items], see `lists_of_rows`
        """
        own = lists[rows]
        sizes = np.bincount(own, minlength=self.list_count)
        used, place_of = np.flatnonzero(sizes), np.cumsum(sizes > 0) - 1
        centres = faiss.IndexFlatIP(self.dim)
        centres.add(self.centre_vectors()[used])
        narrow: Any = faiss.IndexIVFScalarQuantizer(
            centres,
            self.dim,
            len(used),
            self.handle.sq.qtype,
            faiss.METRIC_INNER_PRODUCT,
            self.handle.by_residual,
        )
        narrow.sq, narrow.is_trained = self.handle.sq, True
        for first in range(0, len(rows), CHUNK):
            chosen = rows[first : first + CHUNK]
            _add(narrow, vectors[chosen], chosen, place_of[own[first : first + CHUNK]])
        narrow.nprobe = self.handle.nprobe
        kept = self.centres.among(used, sizes[used]) if self.centres else None
        return ItemIndex(narrow, kept if len(used) > 1 else None)

    def save(self, path: Path) -> None:
        """Write the index file; nprobe travels inside. Raises OSError if the disk refuses.

        In large blocks: a system that can keeps such a file in large pages, read sooner.
        """
        try:
            with path.open("wb", buffering=BLOCK) as stream:
                faiss.write_index(self.handle, UNTYPED.PyCallbackIOWriter(stream.write))
        except OSError as error:
            raise OSError(f"{path}: cannot be written ({error})") from error

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an index file, memory-mapped (plain IO_FLAG_MMAP would cost 4 ms a query).

        Raises RuntimeError if FAISS cannot read it.
        """
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))

    @classmethod
    def exact(cls, vectors: Floats) -> Self:
        """Build one that compares with every vector."""
        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(vectors)
        return cls(flat)

    @classmethod
    def trained(cls, vectors: Floats, factory: str, seed: int) -> Self:
        """Build one by FAISS's own description of it, as `IVF4096,SQ8`.

        What is rounded to 8 bits has one scale for all dimensions, not one for each.
        """
        dim = vectors.shape[1]
        handle: Any = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        handle.cp.seed = seed
        if isinstance(handle, faiss.IndexIVFScalarQuantizer):  # one scale for all: read faster
            handle.sq = faiss.ScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit_uniform)
        handle.train(vectors)
        handle.add(vectors)
        return cls(handle)

    @classmethod
    def extended(cls, path: Path, vectors: Floats) -> Self:
        """Read a saved index into memory, and append those last vectors that it lacks.

        Raises RuntimeError if FAISS cannot read it.
        """
        handle: Any = faiss.read_index(str(path))
        handle.add(np.ascontiguousarray(vectors[handle.ntotal :]))
        return cls(handle)


def parameters(nprobe: int | None, eligible: RowSet | None) -> Any:  # noqa: ANN401  # FAISS's own
    """Return what FAISS is told of one search; None where there is nothing to tell."""
    if eligible is None:
        return None if nprobe is None else UNTYPED.SearchParametersIVF(nprobe=nprobe)
    selector = UNTYPED.IDSelectorBitmap(eligible.bits)
    if nprobe is None:
        return UNTYPED.SearchParameters(sel=selector)
    return UNTYPED.SearchParametersIVF(sel=selector, nprobe=nprobe)


def exact_neighbours(vectors: Floats, queries: Floats, count: int) -> NDArray[np.int64]:
    """Return the rows of the best `count` items per query, exactly; shape [queries, count]."""
    _, rows = faiss.knn(queries, vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(rows, dtype=np.int64)


def _add(handle: Any, vectors: Floats, rows: Rows, places: NDArray[np.integer]) -> None:  # noqa: ANN401  # FAISS's own
    """Add vectors to lists that are known already, under their own row numbers."""
    ids, lists = rows.astype(np.int64), places.astype(np.int64)
    pointers = [faiss.swig_ptr(one) for one in (vectors, ids, lists)]
    handle.add_core(len(rows), *pointers)
