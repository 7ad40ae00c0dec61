"""Bundles spoilt at random, opened and asked in a process of their own, case by case.

    python -m tests.support.corrupt_bundles FOLDER FIRST COUNT KIND

writes a line of JSON before each case, and one after it: what came of it. A case is named by
its number alone. KIND is `plain`, or `foreign`: files of FAISS and onnxruntime whose digests
are made anew, which nothing here promises to survive.
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
from service.bundle_watcher import Live, warm
from service.metrics import unix_time
from tests.support.corruptions import Case
from tests.support.synthetic_bundle import handmade_map, retrieve_one, write_handmade

MEMORY_BYTES = 8 << 30


def write_two(folder: Path) -> None:
    """Write two bundles of the same make, other items and other vectors."""
    for name, seed in (("one", 0), ("two", 1)):
        (folder / name).mkdir(parents=True)
        clusters = handmade_map(prefix=name)
        write_handmade(folder / name, seed=seed, prefix=name, clusters=clusters, with_content=True)
    (folder / "secret.npy").write_bytes((folder / "one" / "item_counts.npy").read_bytes())


def answers(folder: Path) -> str:
    """Open a bundle as the service does, and ask it all kinds of questions."""
    bundle = open_bundle(folder)
    unix_time(bundle.manifest.created_at)
    live = Live(bundle, Retriever(bundle))
    warm(live)
    queries = [
        Query(10),
        Query(10, user_id="user-0"),
        Query(10, user_id="user-2"),
        Query(40, history=["one-1", "one-3"], exclude=["one-5"]),
        Query(10, history=["one-2"], filter={"parity": ["odd"], "tags": ["tag 1"]}),
        Query(10, item_id=bundle.items.ids_of([0])[0]),
    ]
    found = [retrieve_one(live.retriever, one) for one in queries]
    told = [(one.item_ids, None if one.scores is None else one.scores.tolist()) for one in found]
    rows = np.arange(len(bundle.items), dtype=np.int32)
    attributes = bundle.attributes.of(rows) if bundle.attributes else []
    codes = bundle.clusters.codes1.tolist() if bundle.clusters else []
    return repr((told, attributes, codes, bundle.items.ids_of(rows)))


def outcome_of(folder: Path, truth: str) -> str:
    """Say what becomes of a spoilt bundle."""
    try:
        return "same" if answers(folder) == truth else "other"
    except InvalidBundleError:
        return "rejected"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Open cases one after the other, and tell of each."""
    source, first, count, kind = Path(sys.argv[1]), *map(int, sys.argv[2:4]), sys.argv[4]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    opened: list[str] = []
    target = source / f"case-{os.getpid()}"
    truth = answers(source / "one")

    def listen(event: str, details: tuple) -> None:
        if event == "open" and isinstance(details[0], str):
            opened.append(details[0])

    sys.addaudithook(listen)
    for number in range(first, first + count):
        case = Case(source, target, number, kind)
        tell(number=number, case=case.told)
        opened.clear()
        outcome = outcome_of(case.folder, truth)
        outside = [one for one in opened if one.startswith(str(source)) and str(target) not in one]
        tell(number=number, outcome=outcome, outside=outside, is_anew=case.is_anew)
    shutil.rmtree(target, ignore_errors=True)


def tell(**told: object) -> None:
    """Write a line; at once, for the next step may be the last."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
