"""Train without some items of a real dataset, add them by their features, retrieve them."""

import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from index.__main__ import main
from index.bundle.registry import BundleRegistry
from tests.support.http_caller import running
from tests.support.training_runs import run

pytestmark = pytest.mark.e2e

HELD_OUT = 60
SMALL = """
towers = {embedding_dim = 32, history_length = 20}
training = {epochs = 3, device = "cpu"}
evaluation = {ease_items_limit = 0}
"""


def write_subset(source, target, is_kept):
    """Write a dataset with some of the items of another, and their interactions."""
    target.mkdir()
    items = pq.read_table(source / "items.parquet").filter(is_kept)
    pq.write_table(items, target / "items.parquet")
    for path in source.glob("features_*.npy"):
        np.save(target / path.name, np.load(path)[is_kept])
    events = pq.read_table(source / "interactions.parquet")
    kept = np.isin(events["item_id"].to_numpy(), items["item_id"].to_numpy())
    pq.write_table(events.filter(kept), target / "interactions.parquet")
    return target


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ml100k_posters", "amazon_instruments"])
def test_items_held_out_of_real_data_are_added_and_retrieved(test_data, tmp_path, name, capsys):
    source = test_data(name)
    count = len(pq.read_table(source / "items.parquet"))
    is_new = np.zeros(count, dtype=np.bool_)
    is_new[np.random.default_rng(0).choice(count, HELD_OUT, replace=False)] = True
    old = write_subset(source, tmp_path / "old", ~is_new)
    new = write_subset(source, tmp_path / "new", is_new)
    (tmp_path / "run.toml").write_text(SMALL)
    bundles = tmp_path / "bundles"
    assert run(old, bundles, tmp_path / "run.toml") == 0
    with running(bundles) as caller:
        caller.wait_for("ready", BundleRegistry(bundles).current().name)
        assert main(["add-items", str(bundles), "--items", str(new)]) == 0
        assert f"{HELD_OUT} items added" in capsys.readouterr().out
        caller.wait_for("ready", BundleRegistry(bundles).current().name)
        new_ids = [
            str(item_id) for item_id in pq.read_table(new / "items.parquet")["item_id"].to_pylist()
        ]
        for item_id in new_ids:
            result = caller.get(f"/items/{item_id}/similar?k=20").json()
            similar = [candidate["item_id"] for candidate in result["candidates"]]
            assert len({*similar}) == 20
            assert item_id not in similar
        assert caller.retrieve_ids(history=new_ids[:3], k=50)
        users = users_of(source, new_ids)
        hits = [bool({*caller.retrieve_ids(user_id=user, k=200)} & taken) for user, taken in users]
    chance_hit_rate = np.mean([1 - (1 - 200 / count) ** len(taken) for _, taken in users])
    figures = f"{name}: {np.mean(hits):.3f} of {len(hits)} users, at random {chance_hit_rate:.3f}"
    sys.stdout.write(f"a new item of the user among 200 candidates: {figures}\n")  # seen with -rP
    assert np.mean(hits) > chance_hit_rate


def users_of(source, new_ids):
    """Up to 300 users, each with the new items that they took."""
    events = pq.read_table(source / "interactions.parquet").to_pylist()
    taken = {}
    for event in events:
        if str(event["item_id"]) in new_ids:
            taken.setdefault(str(event["user_id"]), set()).add(str(event["item_id"]))
    return sorted(taken.items())[:300]
