"""What a search costs in process, one thread: plain, filtered, past long histories.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.search --work build/bench

On the catalogue of benchmarks.gaussian_shop. The floor is the least that any answer needs: the
user tower for one history and one search of the index as it was tuned, nothing else. Each kind
of question takes turns with the plain one, so that a busy machine troubles both alike. Told are
wall and CPU milliseconds of the thread (the wait for a processor is no part of these), and the
ratio of the CPU medians to the plain questions between. Recall is that of answers against brute
force over the eligible items; `first` is the first question of its kind.
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
CASES, HALF = 400, 200  # histories; plain questions between are half of them further on
LONG = 10_000  # items of a long history, and excluded besides
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


Took = tuple[float, float]  # seconds of wall, of CPU


@dataclass
class Kind:
    """Questions of one kind, and what they took."""

    name: str
    questions: Sequence[Query]
    denied: RowSet | None = None
    took: list[Took] = field(default_factory=list)
    plain: list[Took] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    first_s: float = 0.0


def kinds_of(shop: Shop, histories: Sequence[Rows]) -> list[Kind]:
    """Make the kinds; the first is the plain one."""
    asked = [[id_of(row) for row in history] for history in histories]
    kinds = [Kind("plain", [Query(COUNT, history=one) for one in asked])]
    for name, wanted in FILTERS.items():
        kinds.append(Kind(name, [Query(COUNT, history=one, filter=wanted) for one in asked]))
    rng = np.random.default_rng(1)
    denied = rng.choice(len(shop.vectors), DENIED, replace=False).astype(np.int32)
    denied_rows = RowSet.from_rows(denied, len(shop.vectors))
    kinds.append(Kind(f"{DENIED:,} denied", kinds[0].questions, denied_rows))
    kinds.append(Kind(f"{LONG:,} seen, {LONG:,} excluded", long_questions(shop, rng)))
    for count in (200, 1_000):
        own = [Query(count, history=one) for one in asked]
        kinds.append(Kind(f"plain, {count:,} candidates", own))
    return kinds


def long_questions(shop: Shop, rng: np.random.Generator) -> list[Query]:
    """Ask for users who have seen much of five clusters, and exclude as much of as many."""
    order = np.argsort(shop.cluster, kind="stable")
    questions = []
    for _ in range(20):
        first = int(rng.integers(len(order) - 2 * LONG))
        ids = [id_of(row) for row in order[first : first + 2 * LONG].tolist()]
        questions.append(Query(COUNT, history=ids[LONG:], exclude=ids[:LONG]))
    return questions


def truth(bundle: Bundle, result: SearchResult, kind: Kind) -> Rows:
    """Return the best eligible rows by brute force."""
    assert result.vector is not None
    scores = bundle.vectors @ result.vector
    scores[result.excluded] = -np.inf
    if kind.denied is not None:
        scores[kind.denied.rows()] = -np.inf
    for attribute, values in kind.questions[0].filter.items():
        assert bundle.filters is not None
        is_kept = np.zeros(len(scores), dtype=np.bool_)
        for rows in bundle.filters.get(attribute, list(values)):
            is_kept[rows] = True
        scores[~is_kept] = -np.inf
    best = np.argpartition(-scores, result.k)[: result.k]
    return best[np.isfinite(scores[best])].astype(np.int32)


def timed(took: list[Took], work: Callable[[], object]) -> None:
    """Note what a work takes."""
    begin, cpu = time.perf_counter(), time.thread_time()
    work()
    took.append((time.perf_counter() - begin, time.thread_time() - cpu))


def take_turns(retriever: Retriever, plain: Kind, kind: Kind, rounds: int) -> None:
    """Ask a question of the kind and a plain one by turns, each from history to ids."""
    for turn in range(rounds):
        asked = kind.questions[turn % len(kind.questions)]
        timed(kind.took, partial(retriever.retrieve, [asked], kind.denied, is_bounded=True))
        asked = plain.questions[(turn + HALF) % len(plain.questions)]  # another: no warm start
        timed(kind.plain, partial(retriever.retrieve, [asked], is_bounded=True))


def measure_floor(retriever: Retriever, plain: Kind, rounds: int) -> Kind:
    """Do the least by turns with plain questions."""
    floor = Kind("floor: tower + index", plain.questions)
    rows = [retriever.bundle.items.rows_of(one.history or ()) for one in plain.questions]
    for turn in range(rounds):
        place = turn % len(rows)
        timed(floor.took, partial(least, retriever, rows[place]))
        asked = plain.questions[(turn + HALF) % len(rows)]
        timed(floor.plain, partial(retriever.retrieve, [asked], is_bounded=True))
    return floor


def least(retriever: Retriever, history: Rows) -> Floats:
    """Do the least: encode one history, search the index once."""
    bundle = retriever.bundle
    query = bundle.user_encoder.encode_histories(bundle.vectors, [history])
    bundle.index.search(query, COUNT + slack(COUNT))
    return query


def measure_recall(retriever: Retriever, kind: Kind, cases: int) -> None:
    """Compare answers with brute force; the first of them is timed, it may have to build."""
    for question in kind.questions[:cases]:
        begin = time.perf_counter()
        (answer,) = retriever.retrieve([question], kind.denied)
        kind.first_s = kind.first_s or time.perf_counter() - begin
        best = truth(retriever.bundle, answer, kind)
        assert len(answer.rows) == len(best)
        kind.recalls.append(float(np.isin(best, answer.rows).mean()))


def table(kinds: Sequence[Kind]) -> str:
    """Lay it out."""
    lines = []
    for kind in kinds:
        wall, cpu = 1e3 * np.array(kind.took).T
        plain = 1e3 * np.median(np.array(kind.plain)[:, 1])
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
    heads = ["question", "recall", "p50", "cpu p50", "cpu p99", "ratio", "first"]
    return tabulate(lines, heads, floatfmt=("", ".3f", ".3f", ".3f", ".3f", ".2f", ".1f"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--cases", type=int, default=100, help="questions of each recall")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), metavar="DIR")
    asked = parser.parse_args()
    bundle = open_bundle(BundleRegistry(make_bundle(asked.items, asked.work, asked.seed)).current())
    shop = make_shop(asked.items, asked.seed)
    retriever = Retriever(bundle)
    kinds = kinds_of(shop, make_histories(shop, CASES, asked.seed + 1))
    for kind in kinds:
        measure_recall(retriever, kind, asked.cases)
    floor = measure_floor(retriever, kinds[0], asked.rounds)
    for kind in kinds:
        take_turns(retriever, kinds[0], kind, asked.rounds)
    card = bundle.manifest.index
    print(f"{asked.items:,} items, {card.factory}, nprobe {card.nprobe}, recall {card.recall}")
    print(table([floor, *kinds]))


if __name__ == "__main__":
    main()
