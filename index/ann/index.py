"""ANN index by inner product. Only this module searches with FAISS."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.probing import CoarseCentroids, ProbingPolicy, SearchEffort
from index.arrays import Floats, Rows
from index.bitmap import RowSet

CHUNK = 8_192  # vectors per add
MAX_POINTS = 1 << 20  # training sample of k-means; its time grows with points x lists
MIN_POINTS = 39  # per list, below which FAISS warns
BLOCK_BYTES = 1 << 24  # write buffer
LIST_SHIFT = 32  # entries of FAISS's direct map: list number above, offset in the list below
NUM_THREADS: int = faiss.omp_get_max_threads()  # at import, before PyTorch limits them
FAISS_VERSION: str = faiss.__version__
UNTYPED: Any = faiss  # for calls that FAISS's type stubs lack


@contextmanager
def all_cores() -> Iterator[None]:
    """Let FAISS use all cores, or `OMP_NUM_THREADS`; results do not depend on their number.

    PyTorch shares its OpenMP runtime, so that its number of threads, often 1, is that of FAISS.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(NUM_THREADS)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class Neighbours(NamedTuple):
    """Unordered search results.

    Attributes:
        rows: [queries, count], -1 for missing results.
        scores: [queries, count], with the rounding of the index.
    """

    rows: Rows
    scores: Floats


@dataclass(frozen=True)
class ItemIndex:
    """FAISS index over item vectors, immutable.

    Attributes:
        handle: The FAISS index: IndexFlatIP or IndexIVFScalarQuantizer.
        centroids: Coarse centroids with probing policies; None: probe `nprobe` lists.
    """

    handle: Any
    centroids: CoarseCentroids | None = None

    def __post_init__(self) -> None:
        if self.num_lists > 1:  # callers sort the results faster than FAISS's heap
            self.handle.parallel_mode = self.handle.PARALLEL_MODE_NO_HEAP_INIT

    @property
    def num_items(self) -> int:
        """Number of items."""
        return int(self.handle.ntotal)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.handle.d)

    @property
    def nprobe(self) -> int | None:
        """Mean number of lists probed per query; None for an exact index."""
        return int(self.handle.nprobe) if isinstance(self.handle, faiss.IndexIVF) else None

    @property
    def num_lists(self) -> int:
        """Number of inverted lists; 1 for an exact index."""
        return int(self.handle.nlist) if isinstance(self.handle, faiss.IndexIVF) else 1

    @property
    def rows_per_list(self) -> float:
        """Mean number of rows in an inverted list."""
        return max(1, self.num_items) / self.num_lists

    @property
    def can_build_subset(self) -> bool:
        """Whether `build_subset` is supported."""
        return isinstance(self.handle, faiss.IndexIVFScalarQuantizer)

    @property
    def size_bytes(self) -> int:
        """Approximate memory of codes, ids and centroids."""
        code_bytes = self.handle.code_size if self.num_lists > 1 else 4 * self.dim
        return int(self.num_items * (code_bytes + 8) + self.num_lists * self.dim * 4)

    def search(
        self,
        queries: Floats,
        count: int,
        effort: SearchEffort = SearchEffort(),  # noqa: B008  # immutable
        eligible: RowSet | None = None,
    ) -> Neighbours:
        """Search the `count` nearest rows of each query.

        Results do not depend on the other queries of the batch, except for lists exactly at the
        probing threshold, whose scores may round differently (with `nprobe`: from 20 queries on).

        Args:
            queries: [queries, dim].
            count: Number of rows per query.
            effort: How many lists to probe.
            eligible: Rows that may be returned; None: all.
        """
        rows = np.full((len(queries), count), -1, dtype=np.int64)
        scores = np.full(rows.shape, -np.inf, dtype=np.float32)
        if self.centroids is not None:
            probes = self.centroids.probe(queries, effort)
            arrays = (np.ascontiguousarray(queries), *probes, scores, rows)
            query_pointer, *pointers = [faiss.swig_ptr(array) for array in arrays]
            params = _parameters(probes.lists.shape[1], eligible)
            self.handle.search_preassigned_c(
                len(queries), query_pointer, count, *pointers, False, params
            )
        else:
            params = _parameters(self._nprobe_for(effort), eligible)
            self.handle.search(queries, count, D=scores, I=rows, params=params)
        return Neighbours(rows.astype(np.int32), scores)

    def _nprobe_for(self, effort: SearchEffort) -> int | None:
        if self.nprobe is None:
            return None
        nprobe = max(self.nprobe * effort.depth, effort.min_lists)
        return int(min(nprobe, effort.max_lists or self.num_lists))

    def with_policies(self, policies: Sequence[ProbingPolicy]) -> "ItemIndex":
        """Return the index with these policies; without any it probes `nprobe` lists."""
        if not policies or self.num_lists == 1:
            return replace(self, centroids=None)
        centroids = CoarseCentroids.build(self.centroid_vectors(), self.list_sizes(), policies)
        return replace(self, centroids=centroids)

    def list_sizes(self) -> NDArray[np.int64]:
        """Return the number of rows in each list."""
        size_of = self.handle.invlists.list_size
        return np.array([size_of(number) for number in range(self.num_lists)], dtype=np.int64)

    def centroid_vectors(self) -> Floats:
        """Return the coarse centroids; [lists, dim]."""
        quantizer = faiss.downcast_index(self.handle.quantizer)
        vectors: Floats = quantizer.reconstruct_n(0, self.num_lists)
        return vectors

    def lists_of_rows(self) -> Rows:
        """Return the inverted list of each row; [items]. Safe during searches."""
        self.handle.make_direct_map()
        locations: NDArray[np.int64] = faiss.vector_to_array(self.handle.direct_map.array)
        self.handle.set_direct_map_type(UNTYPED.DirectMap.NoMap)
        UNTYPED.Int64Vector().swap(self.handle.direct_map.array)  # releases its memory
        return (locations >> LIST_SHIFT).astype(np.int32)

    def reweight(self, rows: Rows, lists: Rows) -> "ItemIndex":
        """Return the same index with list weights for a filter.

        Args:
            rows: The rows that the filter keeps.
            lists: [items], see `lists_of_rows`.
        """
        if self.centroids is None:
            return self
        sizes = np.bincount(lists[rows], minlength=self.num_lists)
        return replace(self, centroids=self.centroids.reweight(sizes))

    def build_subset(self, rows: Rows, vectors: Floats, lists: Rows) -> "ItemIndex":
        """Build an index of a subset of the rows, with the same coarse centroids.

        Args:
            rows: Ascending; they keep their row numbers.
            vectors: [items, dim].
            lists: [items], see `lists_of_rows`.
        """
        own = lists[rows]
        sizes = np.bincount(own, minlength=self.num_lists)
        used, new_list = np.flatnonzero(sizes), np.cumsum(sizes > 0) - 1
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
            _add(narrow, vectors[chosen], chosen, new_list[own[first : first + CHUNK]])
        narrow.nprobe = min(self.handle.nprobe, len(used))
        if self.centroids is None or len(used) == 1:
            return ItemIndex(narrow)
        return ItemIndex(narrow, self.centroids.reweight(sizes).select(used))

    def save(self, path: Path) -> None:
        """Save the index with its nprobe; raises OSError if the file cannot be written.

        Large blocks let the page cache use large folios, which makes later reads faster.
        """
        try:
            with path.open("wb", buffering=BLOCK_BYTES) as stream:
                faiss.write_index(self.handle, UNTYPED.PyCallbackIOWriter(stream.write))
        except OSError as error:
            raise OSError(f"{path}: cannot be written ({error})") from error

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an index file memory-mapped (plain IO_FLAG_MMAP would cost 4 ms per query).

        Raises:
            RuntimeError: FAISS cannot read the file.
        """
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))

    @classmethod
    def build_exact(cls, vectors: Floats) -> Self:
        """Build an exact index (`Flat`)."""
        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(vectors)
        return cls(flat)

    @classmethod
    @all_cores()
    def train(cls, vectors: Floats, factory: str, seed: int) -> Self:
        """Train and build an index from a FAISS factory string such as `IVF4096,SQ8`.

        8-bit quantisation uses one scale for all dimensions, which decodes faster.
        """
        dim = vectors.shape[1]
        handle: Any = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        handle.cp.seed = seed
        if isinstance(handle, faiss.IndexIVFScalarQuantizer):
            handle.sq = faiss.ScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit_uniform)
        handle.cp.max_points_per_centroid = max(MIN_POINTS, MAX_POINTS // handle.nlist)
        handle.train(vectors)
        handle.add(vectors)
        return cls(handle)

    @classmethod
    def load_extended(cls, path: Path, vectors: Floats) -> Self:
        """Load a saved index into memory and add the vectors beyond its last row.

        Raises:
            RuntimeError: FAISS cannot read the file.
        """
        handle: Any = faiss.read_index(str(path))
        handle.add(np.ascontiguousarray(vectors[handle.ntotal :]))
        return cls(handle)


@all_cores()
def exact_neighbours(vectors: Floats, queries: Floats, count: int) -> NDArray[np.int64]:
    """Search exhaustively; return the rows of the best items, [queries, count]."""
    _, rows = faiss.knn(queries, vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(rows, dtype=np.int64)


def _parameters(nprobe: int | None, eligible: RowSet | None) -> Any:  # noqa: ANN401  # a FAISS type
    """Build FAISS's search parameters; None for the defaults."""
    if eligible is None:
        return None if nprobe is None else UNTYPED.SearchParametersIVF(nprobe=nprobe)
    selector = UNTYPED.IDSelectorBitmap(eligible.bits)
    if nprobe is None:
        return UNTYPED.SearchParameters(sel=selector)
    return UNTYPED.SearchParametersIVF(sel=selector, nprobe=nprobe)


def _add(handle: Any, vectors: Floats, rows: Rows, lists: NDArray[np.integer]) -> None:  # noqa: ANN401  # a FAISS type
    """Add vectors to given lists, under their own row numbers."""
    ids, list_numbers = rows.astype(np.int64), lists.astype(np.int64)
    pointers = [faiss.swig_ptr(array) for array in (vectors, ids, list_numbers)]
    handle.add_core(len(rows), *pointers)
