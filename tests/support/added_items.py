"""Folders of new items, and the command that adds them."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.__main__ import main
from index.bundle.manifest import measure_files, write_manifest
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from tests.support.redis_server import wait_until
from tests.support.synthetic_bundle import NOW, item_vectors, write_handmade
from tests.support.synthetic_towers import visual_of

NEW = item_vectors(6, seed=7)  # new-0, new-2 ... are even, new-1 ... are odd


def write_items(folder, ids=None, vectors=NEW, columns=None, **features):
    """Write a folder of items that the item encoder maps to these vectors."""
    folder.mkdir(exist_ok=True)
    ids = ids or [f"new-{row}" for row in range(len(vectors))]
    pq.write_table(pa.table({"item_id": ids, **(columns or {})}), folder / "items.parquet")
    for name, rows in ({"look": visual_of(vectors)} | features).items():
        if rows is not None:
            np.save(folder / f"features_{name}.npy", np.asarray(rows, dtype=np.float32))
    return folder


def run_add_items(capsys, bundles, items, *options):
    """Run the command; return its status, stdout and stderr."""
    status = main(["add-items", str(bundles), "--items", str(items), *options])
    output = capsys.readouterr()
    return status, output.out, output.err


def current(bundles):
    return open_bundle(BundleRegistry(bundles).current())


def wait_for_next_second():
    now = int(time.time())
    wait_until(lambda: int(time.time()) > now)


def publish_with_years(bundles, years=tuple(range(40))):
    """Publish a bundle whose table has a column of years; returns its version."""
    registry = BundleRegistry(bundles)
    with registry.stage() as staged:
        manifest = write_handmade(staged, with_content=True)
        columns = {"item_id": [f"item-{row}" for row in range(40)], "year": years}
        pq.write_table(pa.table(columns), staged / "items.parquet")
        write_manifest(staged, manifest.model_copy(update={"files": measure_files(staged)}))
        version = registry.publish(staged, NOW)
    registry.make_current(version)
    return version
