"""Open randomly corrupted bundles and search them, in a separate process.

    python -m tests.support.corrupt_bundles FOLDER FIRST COUNT KIND

writes a line of JSON before each case and one with its outcome after it. The case number is the
random seed. KIND is `plain`, or `foreign`: files of FAISS and onnxruntime with updated digests,
whose readers are not guaranteed to survive.
"""

import json
import os
import resource
import shutil
import sys
from pathlib import Path

import numpy as np

from index.bundle.reader import open_bundle
from index.errors import InvalidBundleError
from index.search.query import Query
from index.search.retriever import Retriever
from service.bundle_watcher import ServedBundle, warm_up
from service.metrics import unix_time
from tests.support.corruptions import Case
from tests.support.synthetic_bundle import handmade_map, retrieve_single, write_handmade

MEMORY_BYTES = 8 << 30


def write_bundle_pair(folder: Path) -> None:
    """Write two bundles of equal shape with other items and vectors."""
    for name, seed in (("one", 0), ("two", 1)):
        (folder / name).mkdir(parents=True)
        clusters = handmade_map(prefix=name)
        write_handmade(folder / name, seed=seed, prefix=name, clusters=clusters, with_content=True)
    (folder / "secret.npy").write_bytes((folder / "one" / "item_counts.npy").read_bytes())


def all_results(folder: Path) -> str:
    """Open a bundle like the service and run all kinds of queries; return the results as text."""
    bundle = open_bundle(folder)
    unix_time(bundle.manifest.created_at)
    live = ServedBundle(bundle, Retriever(bundle))
    warm_up(live)
    queries = [
        Query(10),
        Query(10, user_id="user-0"),
        Query(10, user_id="user-2"),
        Query(40, history=["one-1", "one-3"], exclude=["one-5"]),
        Query(10, history=["one-2"], filter={"parity": ["odd"], "tags": ["tag 1"]}),
        Query(10, item_id=bundle.items.ids_of([0])[0]),
    ]
    results = [retrieve_single(live.retriever, query) for query in queries]
    candidates = [
        (result.item_ids, None if result.scores is None else result.scores.tolist())
        for result in results
    ]
    rows = np.arange(len(bundle.items), dtype=np.int32)
    attributes = bundle.attributes.get(rows) if bundle.attributes else []
    codes = bundle.clusters.codes1.tolist() if bundle.clusters else []
    return repr((candidates, attributes, codes, bundle.items.ids_of(rows)))


def open_outcome(folder: Path, truth: str) -> str:
    """Open a corrupt bundle and classify the outcome."""
    try:
        return "same" if all_results(folder) == truth else "other"
    except InvalidBundleError:
        return "rejected"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Run the cases and report each."""
    source, first, count, kind = Path(sys.argv[1]), *map(int, sys.argv[2:4]), sys.argv[4]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    opened: list[str] = []
    target = source / f"case-{os.getpid()}"
    truth = all_results(source / "one")

    def listen(event: str, details: tuple) -> None:
        if event == "open" and isinstance(details[0], str):
            opened.append(details[0])

    sys.addaudithook(listen)
    for number in range(first, first + count):
        case = Case(source, target, number, kind)
        write_line(number=number, case=case.description)
        opened.clear()
        outcome = open_outcome(case.folder, truth)
        outside = [
            path for path in opened if path.startswith(str(source)) and str(target) not in path
        ]
        write_line(
            number=number, outcome=outcome, outside=outside, has_new_digests=case.has_new_digests
        )
    shutil.rmtree(target, ignore_errors=True)


def write_line(**fields: object) -> None:
    """Write a line of JSON and flush it: the next case may crash the process."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
