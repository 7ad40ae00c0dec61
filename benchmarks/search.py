"""Cost of a search in process on one thread: plain, filtered, with long histories.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.search --work build/bench

Uses the catalogue of benchmarks.gaussian_shop. The floor is the user tower for one history and
one search of the tuned index, nothing else. Each kind of query alternates with plain queries, so
that background load affects both alike. Results are wall and CPU milliseconds of the thread, and
the ratio of CPU medians to the interleaved plain queries. Recall is against brute force over the
eligible items; `first` is the first query of its kind.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tabulate import tabulate

from benchmarks.gaussian_shop import Shop, id_of, make_bundle, make_histories, make_shop
from index.ann.probing import slack
from index.arrays import Floats, Rows
from index.bitmap import RowSet
from index.bundle.reader import Bundle, open_bundle
from index.bundle.registry import BundleRegistry
from index.search.query import Filter, Query, SearchResult
from index.search.retriever import Retriever

COUNT = 100
CASES, HALF = 400, 200  # histories; the interleaved plain queries are half of them further on
LONG = 10_000  # items of a long history, and as many excluded
DENIED = 1_000
FILTERS: dict[str, Filter] = {
    "keeps 50 %": {"half": ["true"]},
    "keeps 5 %": {"twentieth": ["true"]},
    "keeps 0.1 %": {"thousandth": ["true"]},
    "keeps 5 %, whole clusters": {"aisle": ["3"]},
    "keeps 20 %, whole clusters": {"aisle": ["3", "8", "11", "17"]},
    "keeps 0.1 %, whole clusters": {"category": ["700"]},
    "keeps 80 %, whole clusters": {"aisle": [str(aisle) for aisle in range(16)]},
    "keeps 50 % of 5 %": {"half": ["true"], "twentieth": ["true"]},
}


Duration = tuple[float, float]  # wall and CPU seconds


@dataclass
class Kind:
    """Queries of one kind and their measurements."""

    name: str
    queries: Sequence[Query]
    denied: RowSet | None = None
    durations: list[Duration] = field(default_factory=list)
    plain_durations: list[Duration] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    first_s: float = 0.0


def kinds_of(shop: Shop, histories: Sequence[Rows]) -> list[Kind]:
    """Build the kinds; the first is the plain one."""
    item_ids = [[id_of(row) for row in history] for history in histories]
    kinds = [Kind("plain", [Query(COUNT, history=history) for history in item_ids])]
    for name, condition in FILTERS.items():
        kinds.append(
            Kind(name, [Query(COUNT, history=history, filter=condition) for history in item_ids])
        )
    rng = np.random.default_rng(1)
    denied = rng.choice(len(shop.vectors), DENIED, replace=False).astype(np.int32)
    denied_rows = RowSet.from_rows(denied, len(shop.vectors))
    kinds.append(Kind(f"{DENIED:,} denied", kinds[0].queries, denied_rows))
    kinds.append(Kind(f"{LONG:,} seen, {LONG:,} excluded", long_queries(shop, rng)))
    for count in (200, 1_000):
        queries = [Query(count, history=history) for history in item_ids]
        kinds.append(Kind(f"plain, {count:,} candidates", queries))
    return kinds


def long_queries(shop: Shop, rng: np.random.Generator) -> list[Query]:
    """Build queries with long histories and as many exclusions, from few clusters each."""
    order = np.argsort(shop.cluster, kind="stable")
    queries = []
    for _ in range(20):
        first = int(rng.integers(len(order) - 2 * LONG))
        ids = [id_of(row) for row in order[first : first + 2 * LONG].tolist()]
        queries.append(Query(COUNT, history=ids[LONG:], exclude=ids[:LONG]))
    return queries


def brute_force(bundle: Bundle, result: SearchResult, kind: Kind) -> Rows:
    """Return the best eligible rows by brute force."""
    assert result.vector is not None
    scores = bundle.vectors @ result.vector
    scores[result.excluded] = -np.inf
    if kind.denied is not None:
        scores[kind.denied.rows()] = -np.inf
    for attribute, values in kind.queries[0].filter.items():
        assert bundle.filters is not None
        is_kept = np.zeros(len(scores), dtype=np.bool_)
        for rows in bundle.filters.get(attribute, list(values)):
            is_kept[rows] = True
        scores[~is_kept] = -np.inf
    best = np.argpartition(-scores, result.k)[: result.k]
    return best[np.isfinite(scores[best])].astype(np.int32)


def measure(durations: list[Duration], call: Callable[[], object]) -> None:
    """Append the duration of a call."""
    begin, cpu = time.perf_counter(), time.thread_time()
    call()
    durations.append((time.perf_counter() - begin, time.thread_time() - cpu))


def measure_kind(retriever: Retriever, plain: Kind, kind: Kind, rounds: int) -> None:
    """Alternate queries of the kind with plain ones, each from history to ids."""
    for number in range(rounds):
        query = kind.queries[number % len(kind.queries)]
        measure(kind.durations, partial(retriever.retrieve, [query], kind.denied, is_bounded=True))
        query = plain.queries[(number + HALF) % len(plain.queries)]  # another history: cold caches
        measure(kind.plain_durations, partial(retriever.retrieve, [query], is_bounded=True))


def measure_floor(retriever: Retriever, plain: Kind, rounds: int) -> Kind:
    """Alternate the floor with plain queries."""
    floor = Kind("floor: tower + index", plain.queries)
    rows = [retriever.bundle.items.rows_of(query.history or ()) for query in plain.queries]
    for number in range(rounds):
        measure(floor.durations, partial(search_only, retriever, rows[number % len(rows)]))
        query = plain.queries[(number + HALF) % len(rows)]
        measure(floor.plain_durations, partial(retriever.retrieve, [query], is_bounded=True))
    return floor


def search_only(retriever: Retriever, history: Rows) -> Floats:
    """Encode one history and search the index once."""
    bundle = retriever.bundle
    query = bundle.user_encoder.encode_histories(bundle.vectors, [history])
    bundle.index.search(query, COUNT + slack(COUNT))
    return query


def measure_recall(retriever: Retriever, kind: Kind, cases: int) -> None:
    """Compare results with brute force; time the first query, which may compile a filter."""
    for query in kind.queries[:cases]:
        begin = time.perf_counter()
        (result,) = retriever.retrieve([query], kind.denied)
        kind.first_s = kind.first_s or time.perf_counter() - begin
        best = brute_force(retriever.bundle, result, kind)
        assert len(result.rows) == len(best)
        kind.recalls.append(float(np.isin(best, result.rows).mean()))


def table(kinds: Sequence[Kind]) -> str:
    """Render the table."""
    lines = []
    for kind in kinds:
        wall, cpu = 1e3 * np.array(kind.durations).T
        plain = 1e3 * np.median(np.array(kind.plain_durations)[:, 1])
        recall = float(np.mean(kind.recalls)) if kind.recalls else None
        lines.append(
            [
                kind.name,
                recall,
                np.median(wall),
                np.median(cpu),
                np.quantile(cpu, 0.99),
                np.median(cpu) / plain,
                1e3 * kind.first_s if kind.recalls else None,
            ]
        )
    heads = ["query", "recall", "p50", "cpu p50", "cpu p99", "ratio", "first"]
    return tabulate(lines, heads, floatfmt=("", ".3f", ".3f", ".3f", ".3f", ".2f", ".1f"))


def main() -> None:
    """Run the benchmark; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--cases", type=int, default=100, help="queries per recall")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), metavar="DIR")
    args = parser.parse_args()
    if args.items <= 2 * LONG:
        parser.error(f"--items: found {args.items:,}, expected more than {2 * LONG:,}")
    bundle = open_bundle(BundleRegistry(make_bundle(args.items, args.work, args.seed)).current())
    shop = make_shop(args.items, args.seed)
    retriever = Retriever(bundle)
    kinds = kinds_of(shop, make_histories(shop, CASES, args.seed + 1))
    for kind in kinds:
        measure_recall(retriever, kind, args.cases)
    floor = measure_floor(retriever, kinds[0], args.rounds)
    for kind in kinds:
        measure_kind(retriever, kinds[0], kind, args.rounds)
    report = bundle.manifest.index
    print(f"{args.items:,} items, {report.factory}, nprobe {report.nprobe}, recall {report.recall}")
    print(table([floor, *kinds]))


if __name__ == "__main__":
    main()
