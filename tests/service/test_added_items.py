"""Items appended after training: retrieved, but without a cluster."""

import numpy as np

from index.__main__ import main
from index.bundle.registry import BundleRegistry
from tests.support.http_caller import running, until
from tests.support.synthetic_bundle import ITEM_COUNT, handmade_map, item_vectors, publish_handmade
from tests.support.synthetic_towers import visual_of


def write_items(folder):
    folder.mkdir()
    lines = ["item_id", *(f"new-{row}" for row in range(4))]
    (folder / "items.csv").write_text("\n".join(lines))
    np.save(folder / "features_look.npy", visual_of(item_vectors(4, seed=5)).astype(np.float32))
    return folder


def test_appended_items_are_retrieved_without_cluster(tmp_path):
    bundles = tmp_path / "bundles"
    own = handmade_map()
    publish_handmade(bundles, with_content=True, clusters=own)
    items = write_items(tmp_path / "items")
    with running(bundles) as caller:
        caller.wait_for("ready")
        caller.wait_for_clusters("empty", own.version)
        assert main(["add-items", str(bundles), "--items", str(items)]) == 0
        version = BundleRegistry(bundles).current().name
        caller.wait_for("ready", version)
        until(lambda: caller.get("/clusters").json()["bundle"] == version)
        clusters = caller.get("/clusters").json()
        assert (clusters["version"], clusters["source"]) == (own.version, "bundle")
        assert (clusters["items"], clusters["unknown_items"]) == (ITEM_COUNT, 4)
        result = caller.retrieve(history=["new-0"], k=43, include=["clusters"]).json()
        codes = {candidate["item_id"]: candidate["cluster"] for candidate in result["candidates"]}
        assert [codes[f"new-{row}"] for row in (1, 2, 3)] == [None] * 3
        assert codes["item-5"] == [1, 1]
        negatives = caller.negatives(positives=["new-1", "item-5"], easy=3, hard=2, seed=1).json()
        assert negatives["positives"] == ["new-1", "item-5"]
        assert "unknown_items" not in negatives
        assert caller.get("/bundle").json()["manifest"]["added"][0]["count"] == 4
