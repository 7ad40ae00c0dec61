"""Peer of the benchmark: a single-file FastAPI service on hnswlib.

    python -m benchmarks.serving.peer --bundles DIR --port 0

Items, user encoder, requests and responses are those of the service; seen items are removed by
fetching as many more. It searches inline and has no metrics, access log or request queue.
Needs `pip install hnswlib`. The graph is built once and cached beside the bundles.
"""

import argparse
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from index.arrays import Floats
from index.bundle.reader import Bundle, open_bundle
from index.bundle.registry import BundleRegistry

LINKS, EF_CONSTRUCTION = 32, 200


class RetrieveRequest(BaseModel):
    """Body of /retrieve; other keys are ignored."""

    history: list[str]
    k: int = 100


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.peer")
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ef", type=int, required=True, help="`ef` of the HNSW search")
    args = parser.parse_args()
    bundle = open_bundle(BundleRegistry(args.bundles).current())
    app = create_app(bundle, open_graph(bundle, args.bundles), args.ef)
    listener = socket.create_server(("127.0.0.1", args.port), backlog=2048)
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(
        sockets=[listener]
    )


def create_app(bundle: Bundle, graph: Any, ef: int) -> FastAPI:  # noqa: ANN401  # no types
    """Create the application."""
    graph.set_ef(ef)
    graph.set_num_threads(1)
    ids = bundle.items.ids_of(np.arange(len(bundle.vectors), dtype=np.int32))
    rows = {item_id: row for row, item_id in enumerate(ids)}
    vectors = np.array(bundle.vectors)
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> str:
        return "ready"

    @app.post("/retrieve")
    async def retrieve(request: RetrieveRequest) -> Response:
        seen = [rows[item_id] for item_id in request.history if item_id in rows]
        query = bundle.user_encoder.encode_histories(vectors, [np.array(seen, np.int32)])[0]
        results = search(graph, query, request.k, seen)
        candidates = [{"item_id": ids[row], "score": score} for row, score in results]
        return Response(orjson.dumps({"candidates": candidates}), media_type="application/json")

    return app


def search(
    graph: Any,  # noqa: ANN401  # no types
    query: Floats,
    count: int,
    seen: Sequence[int],
) -> list[tuple[int, float]]:
    """Return rows and scores of the best unseen items."""
    rows, distances = graph.knn_query(query, k=count + len(seen))
    excluded = set(seen)
    pairs = zip(rows[0].tolist(), distances[0].tolist(), strict=True)
    return [(row, 1.0 - distance) for row, distance in pairs if row not in excluded][:count]


def open_graph(bundle: Bundle, folder: Path) -> Any:  # noqa: ANN401  # no types
    """Load the graph of a bundle's vectors, or build and save it."""
    import hnswlib

    graph = hnswlib.Index(space="ip", dim=bundle.vectors.shape[1])
    path = folder / f"hnsw-{bundle.version}.bin"
    if path.exists():
        graph.load_index(str(path))
        return graph
    graph.init_index(len(bundle.vectors), M=LINKS, ef_construction=EF_CONSTRUCTION)
    graph.add_items(bundle.vectors, np.arange(len(bundle.vectors)))
    graph.save_index(str(path))
    return graph


if __name__ == "__main__":
    main()
