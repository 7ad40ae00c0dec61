"""Part `peer`: /retrieve against hnswlib in FastAPI, at equal recall."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import orjson
from tabulate import tabulate

from benchmarks.serving import peer
from benchmarks.serving.processes import serving
from benchmarks.serving.rounds import CONNECTIONS, SERVER_CORE, compare, format_metrics
from benchmarks.serving.settings import BenchmarkSettings, Shop
from index.ann.index import exact_neighbours
from index.arrays import Rows
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.search.query import Query
from index.search.retriever import Retriever

PEER = "benchmarks.serving.peer"
COUNT, NUM_QUERIES = 100, 1_000
EF_VALUES = (100, 150, 200, 300, 350, 400, 500, 600, 800, 1_200, 1_600, 2_400, 3_200)


@dataclass(frozen=True)
class Tuned:
    """The smallest `ef` of HNSW with at least the recall of our index.

    Attributes:
        ours: Mean recall@100 of the exact best unseen items.
        peers: Likewise.
    """

    ef: int
    ours: float
    peers: float


def show(settings: BenchmarkSettings) -> None:
    """Compare with hnswlib in FastAPI at equal recall, at the largest size."""
    shop = max(settings.shops, key=lambda shop: shop.items)
    tuned = tune(shop)
    with ExitStack() as stack:
        contexts = {
            "ours": serving("service", shop.bundles, SERVER_CORE),
            "peer": serving(PEER, shop.bundles, SERVER_CORE, "--ef", str(tuned.ef)),
        }
        servers = {name: stack.enter_context(context) for name, context in contexts.items()}
        rows = []
        for connections in CONNECTIONS:
            metrics = compare(servers, shop.bodies, connections, settings.rounds, settings.seconds)
            ratio = metrics["ours"].rps / metrics["peer"].rps
            rows.append(
                [connections, *format_metrics(metrics["ours"]), *format_metrics(metrics["peer"])]
            )
            rows[-1].append(f"{ratio:.2f}")
    print(f"{shop.items:,} items; recall@100: ours {tuned.ours:.3f}, ", end="")
    print(f"hnswlib M {peer.LINKS}, ef {tuned.ef}: {tuned.peers:.3f}")
    heads = ["connections", "ours RPS", "p50", "p99", "CPU us", "peer RPS", "p50", "p99"]
    print(tabulate(rows, [*heads, "CPU us", "ratio"], disable_numparse=True), end="\n\n")


def tune(shop: Shop) -> Tuned:
    """Increase `ef` until HNSW has the recall of our index."""
    bundle = open_bundle(BundleRegistry(shop.bundles).current())
    retriever, graph = Retriever(bundle), peer.open_graph(bundle, shop.bundles)
    lines = shop.bodies.read_bytes().splitlines()[:NUM_QUERIES]
    histories = [bundle.items.rows_of(orjson.loads(line)["history"]) for line in lines]
    queries = bundle.user_encoder.encode_histories(bundle.vectors, histories)
    exact = exact_neighbours(bundle.vectors, queries, COUNT + max(map(len, histories)))
    best = [rows[~np.isin(rows, seen)][:COUNT] for rows, seen in zip(exact, histories, strict=True)]
    results = [
        retriever.retrieve([Query(COUNT, history=orjson.loads(line)["history"])])[0]
        for line in lines
    ]
    ours = recall(best, [bundle.items.rows_of(result.item_ids) for result in results])
    for ef in EF_VALUES:
        graph.set_ef(ef)
        retrieved = [
            [row for row, _ in peer.search(graph, query, COUNT, seen.tolist())]
            for query, seen in zip(queries, histories, strict=True)
        ]
        peers = recall(best, retrieved)
        if peers >= ours:
            break
    return Tuned(ef, ours, peers)


def recall(best: Sequence[Rows], retrieved: Sequence[Sequence[int] | Rows]) -> float:
    """Return the mean share of the exact best that was retrieved."""
    pairs = zip(best, retrieved, strict=True)
    return float(np.mean([np.isin(expected, rows).mean() for expected, rows in pairs]))
