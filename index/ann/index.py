"""The ANN index: nearest items by inner product. The one module that searches with FAISS."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.probing import CoarseCentroids, ProbingPolicy, SearchEffort
from index.arrays import Floats, Rows
from index.bitmap import RowSet

CHUNK = 8_192  # vectors added at once
BLOCK_BYTES = 1 << 24  # written at once
LIST_SHIFT = 32  # of a number of FAISS's direct map: the list above, the place in it below
FAISS_VERSION: str = faiss.__version__
UNTYPED: Any = faiss  # for calls that its own types do not describe


class Neighbours(NamedTuple):
    """The rows found for each query, in no order.

    Attributes:
        rows: [queries, count] -1 where there are fewer.
        scores: [queries, count] as the index rounds.
    """

    rows: Rows
    scores: Floats


@dataclass(frozen=True)
class ItemIndex:
    """A FAISS index over item vectors; immutable once built or opened.

    Attributes:
        handle: FAISS's own: IndexFlatIP, or IndexIVFScalarQuantizer.
        centroids: By which a query chooses its lists; None: `nprobe` lists, or no lists.
    """

    handle: Any
    centroids: CoarseCentroids | None = None

    def __post_init__(self) -> None:
        if self.list_count > 1:  # callers order what was found, in less time
            self.handle.parallel_mode = self.handle.PARALLEL_MODE_NO_HEAP_INIT

    @property
    def count(self) -> int:
        """Number of items."""
        return int(self.handle.ntotal)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.handle.d)

    @property
    def nprobe(self) -> int | None:
        """Mean number of lists that a query probes; None where it is exact."""
        return int(self.handle.nprobe) if isinstance(self.handle, faiss.IndexIVF) else None

    @property
    def list_count(self) -> int:
        """Number of inverted lists: 1 where a search is exact."""
        return int(self.handle.nlist) if isinstance(self.handle, faiss.IndexIVF) else 1

    @property
    def rows_per_list(self) -> float:
        """Mean number of rows in an inverted list."""
        return max(1, self.count) / self.list_count

    @property
    def can_narrow(self) -> bool:
        """Whether `narrowed` can be asked for."""
        return isinstance(self.handle, faiss.IndexIVFScalarQuantizer)

    @property
    def size_bytes(self) -> int:
        """Memory of codes, row numbers and centroids, about."""
        code_bytes = self.handle.code_size if self.list_count > 1 else 4 * self.dim
        return int(self.count * (code_bytes + 8) + self.list_count * self.dim * 4)

    def search(
        self,
        queries: Floats,
        count: int,
        effort: SearchEffort = SearchEffort(),  # noqa: B008  # it never changes
        eligible: RowSet | None = None,
    ) -> Neighbours:
        """Return `count` rows near each query [queries, dim], only eligible ones if told.

        What a query finds does not depend on the others, but for a list at the threshold, whose
        score may be rounded otherwise; by `nprobe` so from twenty queries on.
        """
        rows = np.full((len(queries), count), -1, dtype=np.int64)
        scores = np.full(rows.shape, -np.inf, dtype=np.float32)
        if self.centroids is not None:
            probes = self.centroids.probe(queries, effort)
            arrays = (np.ascontiguousarray(queries), *probes, scores, rows)
            asked, *others = [faiss.swig_ptr(one) for one in arrays]
            params = _parameters(probes.lists.shape[1], eligible)
            self.handle.search_preassigned_c(len(queries), asked, count, *others, False, params)
        else:
            params = _parameters(self._nprobe_for(effort), eligible)
            self.handle.search(queries, count, D=scores, I=rows, params=params)
        return Neighbours(rows.astype(np.int32), scores)

    def _nprobe_for(self, effort: SearchEffort) -> int | None:
        if self.nprobe is None:
            return None
        wanted = max(self.nprobe * effort.depth, effort.min_lists)
        return int(min(wanted, effort.max_lists or self.list_count))

    def with_policies(self, policies: Sequence[ProbingPolicy]) -> "ItemIndex":
        """Return the same index, probed by these; by none: `nprobe` lists."""
        if not policies or self.list_count == 1:
            return replace(self, centroids=None)
        centroids = CoarseCentroids.build(self.centroid_vectors(), self.list_sizes(), policies)
        return replace(self, centroids=centroids)

    def list_sizes(self) -> NDArray[np.int64]:
        """Return how many rows are in each list."""
        size_of = self.handle.invlists.list_size
        return np.array([size_of(place) for place in range(self.list_count)], dtype=np.int64)

    def centroid_vectors(self) -> Floats:
        """Return the coarse centroid of each list; [lists, dim]."""
        quantizer = faiss.downcast_index(self.handle.quantizer)
        vectors: Floats = quantizer.reconstruct_n(0, self.list_count)
        return vectors

    def lists_of_rows(self) -> Rows:
        """Return the list of each row; [count]. Searches may go on meanwhile."""
        self.handle.make_direct_map()
        places: NDArray[np.int64] = faiss.vector_to_array(self.handle.direct_map.array)
        self.handle.set_direct_map_type(UNTYPED.DirectMap.NoMap)
        UNTYPED.Int64Vector().swap(self.handle.direct_map.array)  # else its memory stays
        return (places >> LIST_SHIFT).astype(np.int32)

    def reweighted(self, rows: Rows, lists: Rows) -> "ItemIndex":
        """Return the same index, its lists weighted by how many of these rows they hold.

        Args:
            rows: The only rows that will be eligible.
            lists: [items] see `lists_of_rows`.
        """
        if self.centroids is None:
            return self
        sizes = np.bincount(lists[rows], minlength=self.list_count)
        return replace(self, centroids=self.centroids.filtered(sizes))

    def narrowed(self, rows: Rows, vectors: Floats, lists: Rows) -> "ItemIndex":
        """Return an index over these rows alone, in the lists that hold any of them.

        Args:
            rows: Ascending; they keep their numbers.
            vectors: [items, dim]
            lists: [items] see `lists_of_rows`.
        """
        own = lists[rows]
        sizes = np.bincount(own, minlength=self.list_count)
        used, place_of = np.flatnonzero(sizes), np.cumsum(sizes > 0) - 1
        quantizer = faiss.IndexFlatIP(self.dim)
        quantizer.add(self.centroid_vectors()[used])
        narrow: Any = faiss.IndexIVFScalarQuantizer(
            quantizer,
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
        narrow.nprobe = min(self.handle.nprobe, len(used))
        if self.centroids is None or len(used) == 1:
            return ItemIndex(narrow)
        return ItemIndex(narrow, self.centroids.filtered(sizes).among(used))

    def save(self, path: Path) -> None:
        """Write the index file; nprobe travels inside. Raises OSError if the disk refuses.

        In large blocks: a system that can keeps such a file in large pages, read sooner.
        """
        try:
            with path.open("wb", buffering=BLOCK_BYTES) as stream:
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
        """Build one by its FAISS factory string, as `IVF4096,SQ8`.

        What is rounded to 8 bits has one scale for all dimensions, which is read faster.
        """
        dim = vectors.shape[1]
        handle: Any = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        handle.cp.seed = seed
        if isinstance(handle, faiss.IndexIVFScalarQuantizer):
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


def exact_neighbours(vectors: Floats, queries: Floats, count: int) -> NDArray[np.int64]:
    """Return the rows of the best `count` items per query, exactly; [queries, count]."""
    _, rows = faiss.knn(queries, vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(rows, dtype=np.int64)


def _parameters(nprobe: int | None, eligible: RowSet | None) -> Any:  # noqa: ANN401  # FAISS's own
    """Return FAISS's parameters of one search; None where there are none."""
    if eligible is None:
        return None if nprobe is None else UNTYPED.SearchParametersIVF(nprobe=nprobe)
    selector = UNTYPED.IDSelectorBitmap(eligible.bits)
    if nprobe is None:
        return UNTYPED.SearchParameters(sel=selector)
    return UNTYPED.SearchParametersIVF(sel=selector, nprobe=nprobe)


def _add(handle: Any, vectors: Floats, rows: Rows, places: NDArray[np.integer]) -> None:  # noqa: ANN401  # FAISS's own
    """Add vectors to known lists, under their own row numbers."""
    ids, lists = rows.astype(np.int64), places.astype(np.int64)
    pointers = [faiss.swig_ptr(one) for one in (vectors, ids, lists)]
    handle.add_core(len(rows), *pointers)
