"""/retrieve against hnswlib in FastAPI, at equal recall."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import orjson
from tabulate import tabulate

from benchmarks.serving import peer
from benchmarks.serving.plan import Plan, Shop
from benchmarks.serving.processes import serving
from benchmarks.serving.turns import CONNECTIONS, SERVER_CORE, compare, told
from index.ann.index import exact_neighbours
from index.arrays import Rows
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.search.query import Query
from index.search.retriever import Retriever

PEER = "benchmarks.serving.peer"
COUNT, TRIED = 100, 1_000
STEPS = (100, 150, 200, 300, 350, 400, 500, 600, 800, 1_200, 1_600, 2_400, 3_200)


@dataclass(frozen=True)
class Tuned:
    """The shortest list of HNSW that finds as much as our index does.

    ours, peers  mean recall at 100, of the exact best that are not seen
    """

    ef: int
    ours: float
    peers: float


def show(plan: Plan) -> None:
    """Compare with hnswlib in FastAPI at equal recall, at the largest size."""
    shop = max(plan.shops, key=lambda one: one.items)
    tuned = tune(shop)
    with ExitStack() as stack:
        started = {
            "ours": serving("service", shop.bundles, SERVER_CORE),
            "peer": serving(PEER, shop.bundles, SERVER_CORE, "--ef", str(tuned.ef)),
        }
        servers = {name: stack.enter_context(one) for name, one in started.items()}
        rows = []
        for connections in CONNECTIONS:
            found = compare(servers, shop.bodies, connections, plan.turns, plan.seconds)
            ratio = found["ours"].rps / found["peer"].rps
            rows.append([connections, *told(found["ours"]), *told(found["peer"])])
            rows[-1].append(f"{ratio:.2f}")
    print(f"{shop.items:,} items; recall@100: ours {tuned.ours:.3f}, ", end="")
    print(f"hnswlib M {peer.LINKS}, ef {tuned.ef}: {tuned.peers:.3f}")
    heads = ["connections", "ours RPS", "p50", "p99", "CPU us", "peer RPS", "p50", "p99"]
    print(tabulate(rows, [*heads, "CPU us", "ratio"], disable_numparse=True), end="\n\n")


def tune(shop: Shop) -> Tuned:
    """Lengthen HNSW's list until it finds as much as we do."""
    bundle = open_bundle(BundleRegistry(shop.bundles).current())
    retriever, graph = Retriever(bundle), peer.open_graph(bundle, shop.bundles)
    lines = shop.bodies.read_bytes().splitlines()[:TRIED]
    histories = [bundle.items.rows_of(orjson.loads(line)["history"]) for line in lines]
    queries = bundle.user_encoder.encode_histories(bundle.vectors, histories)
    exact = exact_neighbours(bundle.vectors, queries, COUNT + max(map(len, histories)))
    best = [own[~np.isin(own, seen)][:COUNT] for own, seen in zip(exact, histories, strict=True)]
    answers = [
        retriever.retrieve([Query(COUNT, history=orjson.loads(line)["history"])])[0]
        for line in lines
    ]
    ours = recall(best, [bundle.items.rows_of(one.item_ids) for one in answers])
    for ef in STEPS:
        graph.set_ef(ef)
        found = [
            [row for row, _ in peer.search(graph, query, COUNT, seen.tolist())]
            for query, seen in zip(queries, histories, strict=True)
        ]
        peers = recall(best, found)
        if peers >= ours:
            break
    return Tuned(ef, ours, peers)


def recall(best: Sequence[Rows], found: Sequence[Sequence[int] | Rows]) -> float:
    """Return the mean share of the exact best that was found."""
    return float(np.mean([np.isin(one, own).mean() for one, own in zip(best, found, strict=True)]))
