"""What a user would write without us: hnswlib in FastAPI, one file, done well.

    python -m benchmarks.serving.peer --bundles DIR --port 0

Same items, same user encoder, the questions and the answers of ours; the seen items are left
out by fetching as many more. Inline work, orjson, no metrics, no access log, no bounded queue.
Needs `pip install hnswlib`. The graph is built once and kept beside the bundles.
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


class Question(BaseModel):
    """What is asked; extra keys are passed over."""

    history: list[str]
    k: int = 100


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.peer")
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ef", type=int, required=True, help="length of HNSW's list")
    asked = parser.parse_args()
    bundle = open_bundle(BundleRegistry(asked.bundles).current())
    app = create_app(bundle, open_graph(bundle, asked.bundles), asked.ef)
    listener = socket.create_server(("127.0.0.1", asked.port), backlog=2048)
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(
        sockets=[listener]
    )


def create_app(bundle: Bundle, graph: Any, ef: int) -> FastAPI:  # noqa: ANN401  # no types
    """Make the service."""
    graph.set_ef(ef)
    graph.set_num_threads(1)
    ids = bundle.items.ids_of(np.arange(len(bundle.vectors), dtype=np.int32))
    rows = {one: row for row, one in enumerate(ids)}
    vectors = np.array(bundle.vectors)
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> str:
        return "ready"

    @app.post("/retrieve")
    async def retrieve(question: Question) -> Response:
        seen = [rows[one] for one in question.history if one in rows]
        query = bundle.user_encoder.encode_histories(vectors, [np.array(seen, np.int32)])[0]
        found = search(graph, query, question.k, seen)
        answer = [{"item_id": ids[row], "score": score} for row, score in found]
        return Response(orjson.dumps({"candidates": answer}), media_type="application/json")

    return app


def search(
    graph: Any,  # noqa: ANN401  # no types
    query: Floats,
    count: int,
    seen: Sequence[int],
) -> list[tuple[int, float]]:
    """Return rows and scores of the best that are not seen."""
    found, distances = graph.knn_query(query, k=count + len(seen))
    left = set(seen)
    pairs = zip(found[0].tolist(), distances[0].tolist(), strict=True)
    return [(row, 1.0 - distance) for row, distance in pairs if row not in left][:count]


def open_graph(bundle: Bundle, folder: Path) -> Any:  # noqa: ANN401  # no types
    """Load the graph of a bundle's vectors, or build and keep it."""
    import hnswlib

    graph = hnswlib.Index(space="ip", dim=bundle.vectors.shape[1])
    kept = folder / f"hnsw-{bundle.version}.bin"
    if kept.exists():
        graph.load_index(str(kept))
        return graph
    graph.init_index(len(bundle.vectors), M=LINKS, ef_construction=EF_CONSTRUCTION)
    graph.add_items(bundle.vectors, np.arange(len(bundle.vectors)))
    graph.save_index(str(kept))
    return graph


if __name__ == "__main__":
    main()
