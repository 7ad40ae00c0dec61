"""Warm start: a run continues from the training state of a published bundle."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from index.bundle.manifest import read_manifest
from index.bundle.registry import BundleRegistry
from index.errors import ConfigError, InvalidBundleError
from index.publish.append import add_items
from tests.support.published_bundles import flip_byte
from tests.support.tiny_dataset import write_tiny_world
from tests.support.training_runs import (
    arguments,
    run,
    start_trainer,
    wait_until_in_mid_epoch,
    write_config,
)
from trainer.checkpoint import Checkpoint
from trainer.config import load_config
from trainer.data.dataset import load_dataset
from trainer.samplers.simple import sample_in_batch
from trainer.train_loop import TrainLoop
from trainer.training_data import build_training_data
from trainer.warm_start import STATE_KEY, list_warm_rows, open_warm_start, require_compatible

TABLE = "item.ids.weight"
FIRST = {"training": {"epochs": 1, "batch_size": 32}}


@pytest.fixture(scope="module")
def published(world, tmp_path_factory):
    """A refitted run of one epoch: its configuration and its bundles."""
    folder = tmp_path_factory.mktemp("published")
    config = write_config(folder / "run.toml", FIRST)
    assert run(world, folder / "bundles", config, "--refit") == 0
    return config, folder / "bundles"


@pytest.fixture
def bundles(published, tmp_path):
    """A copy of the published bundles, to change."""
    return shutil.copytree(published[1], tmp_path / "bundles")


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """The world without item-159, in reverse order, with the items new-0 and new-1."""
    folder = tmp_path_factory.mktemp("changed")
    write_tiny_world(folder, users=120, items=160)
    events = pq.read_table(folder / "interactions.parquet").to_pylist()
    events = [event for event in events if event["item_id"] != "item-159"]
    events += [
        {"user_id": f"user-{user}", "item_id": f"new-{user % 2}", "timestamp": 1_000_000_000}
        for user in range(20)
    ]
    pq.write_table(pa.Table.from_pylist(events), folder / "interactions.parquet")
    ids = ["new-0", "new-1", *(f"item-{row}" for row in reversed(range(159)))]
    pq.write_table(pa.table({"item_id": ids}), folder / "items.parquet")
    for path in folder.glob("features_*.npy"):
        values = np.load(path)
        np.save(path, np.concatenate([values[:2], values[158::-1]]))
    return folder


def open_loop(data, config):
    return TrainLoop(build_training_data(data, config), sample_in_batch, config)


def state_in(bundles, version="current"):
    """Groups of the training state of a version."""
    warm_start = open_warm_start(BundleRegistry(bundles), version)
    return warm_start, Checkpoint(warm_start.state, STATE_KEY).load()[0]


def weights_of(bundles):
    return (BundleRegistry(bundles).current() / "towers.safetensors").read_bytes()


def warm_ids_of(data):
    return [data.item_ids[row] for row in list_warm_rows(data)]


def test_warm_start_joins_rows_by_item_id(published, changed, world_data):
    warm_start, state = state_in(published[1])
    data, config = load_dataset(changed), load_config(published[0])
    loop = open_loop(data, config)
    table = loop.towers.item.ids.weight
    initial = table.detach().clone()
    warm_ids = warm_ids_of(data)
    assert len(warm_ids) == len(table) - 1
    warm_start.restore(warm_ids, loop.towers, loop.optimizers)
    adam, saved = loop.optimizers["id_optimizer"].state[table], state["id_optimizer"]
    old = {item_id: row for row, item_id in enumerate(warm_ids_of(world_data))}
    assert {item_id for item_id in warm_ids if item_id not in old} >= {"new-0", "new-1"}
    for row, item_id in enumerate(warm_ids):
        known = old.get(item_id)
        expected = initial[row] if known is None else state["best"][TABLE][known]
        assert torch.equal(table[row], expected)
        for name in ("exp_avg", "exp_avg_sq"):
            zeros = 0 * adam[name][row]
            assert torch.equal(
                adam[name][row], zeros if known is None else saved[f"0/{name}"][known]
            )
    assert torch.equal(table[-1], state["best"][TABLE][-1])  # the unknown item
    assert torch.equal(adam["exp_avg"][-1], saved["0/exp_avg"][-1])


def test_warm_start_continues_means_and_step_counters(published, changed):
    warm_start, state = state_in(published[1])
    data, config = load_dataset(changed), load_config(published[0])
    loop = open_loop(data, config)
    means = loop.towers.item.mean_0.clone()
    warm_start.restore(warm_ids_of(data), loop.towers, loop.optimizers)
    assert torch.equal(loop.towers.item.mean_0, state["best"]["item.mean_0"])
    assert not torch.equal(loop.towers.item.mean_0, means)
    steps = warm_start.manifest.run["training"]["steps"]
    for optimizer in loop.optimizers.values():
        assert {int(each["step"]) for each in optimizer.state.values()} == {steps}


def test_run_warm_from_current_is_recorded(world, published, bundles, capsys):
    config, _ = published
    version = BundleRegistry(bundles).current_version()
    assert run(world, bundles, config, "--warm-from", "current", "--refit", "--force") == 0
    output = capsys.readouterr().out
    joined = f"warm start from {version}: "
    assert output.count(joined) == 2  # the evaluated run and the refit
    training = read_manifest(BundleRegistry(bundles).current()).run["training"]
    assert training["warm_from"] == version
    assert (
        training["curve"][0]["loss"]
        < read_manifest(bundles / version).run["training"]["curve"][0]["loss"]
    )


def test_killed_warm_run_resumes_to_identical_weights(world, published, tmp_path):
    slow = {"training": FIRST["training"] | {"checkpoint_interval_s": 0}}
    often = write_config(tmp_path / "often.toml", slow)
    killed, whole = (shutil.copytree(published[1], tmp_path / name) for name in "ab")
    first = start_trainer(*arguments(world, killed, often, "--warm-from", "current"))
    wait_until_in_mid_epoch(first, killed)
    first.kill()  # SIGKILL
    first.communicate()
    for bundles in (killed, whole):
        assert run(world, bundles, published[0], "--warm-from", "current", "--force") == 0
    assert len(BundleRegistry(killed).versions()) == 2
    assert weights_of(killed) == weights_of(whole) != weights_of(published[1])


def test_warm_start_after_added_items_uses_trained_rows(published, bundles, world_data, tmp_path):
    registry = BundleRegistry(bundles)
    new = tmp_path / "new"
    new.mkdir()
    pq.write_table(pa.table({"item_id": ["new-0"]}), new / "items.parquet")
    for name, width in (("visual", 8), ("textual", 6)):
        np.save(new / f"features_{name}.npy", np.ones((1, width), np.float32))
    added = add_items(registry, new, datetime.now(UTC))
    registry.make_current(added.version)
    warm_start, _ = state_in(bundles)
    config = load_config(published[0])
    loop = open_loop(world_data, config)
    initial = loop.towers.item.ids.weight.detach().clone()
    warm_start.restore(["new-0", *warm_ids_of(world_data)[1:]], loop.towers, loop.optimizers)
    assert torch.equal(loop.towers.item.ids.weight[0], initial[0])
    assert not torch.equal(loop.towers.item.ids.weight[1], initial[1])


def test_run_rejects_unknown_warm_start_before_reading(published, tmp_path, capsys):
    config, bundles = published
    for folder, version in ((bundles, "20200101T000000Z-0000"), (tmp_path / "none", "current")):
        assert run(tmp_path / "no-data", folder, config, "--warm-from", version) == 1
        assert capsys.readouterr().err.startswith("run --warm-from: ")
    with pytest.raises(ConfigError):
        open_warm_start(BundleRegistry(bundles), "20200101T000000Z-0000")


def test_bundle_without_training_state_is_rejected(world, tmp_path):
    sections = FIRST | {"bundle": {"training_state": False}}
    config = write_config(tmp_path / "run.toml", sections)
    assert run(world, tmp_path / "bundles", config) == 0
    assert not (tmp_path / "bundles" / ".training").exists()
    with pytest.raises(ConfigError, match="found no training state"):
        open_warm_start(BundleRegistry(tmp_path / "bundles"), "current")


@pytest.mark.parametrize("key", ["embedding_dim", "history_length"])
def test_warm_start_of_other_towers_is_rejected(published, world_data, key):
    config = load_config(published[0])
    towers = config.towers.model_copy(update={key: 32})
    warm_start = open_warm_start(BundleRegistry(published[1]), "current")
    require_compatible(warm_start, config, world_data)
    with pytest.raises(ConfigError, match=f"towers.{key}: found 32, expected"):
        require_compatible(warm_start, config.model_copy(update={"towers": towers}), world_data)


def test_warm_start_on_other_kinds_of_data_is_rejected(published, world_data):
    config = load_config(published[0])
    warm_start = open_warm_start(BundleRegistry(published[1]), "current")
    modalities = world_data.modalities
    wide = {**modalities, "visual": np.zeros((160, 9), np.float32)}
    unordered = replace(world_data.interactions, is_ordered=False)
    for change, what in (
        ({"modalities": {"visual": modalities["visual"]}}, "modalities"),
        ({"modalities": wide}, "modalities"),
        ({"interactions": unordered}, "ordered interactions"),
    ):
        with pytest.raises(ConfigError, match=f"does not fit this run; {what}: found"):
            require_compatible(warm_start, config, replace(world_data, **change))


def test_damaged_training_state_is_rejected(published, bundles, world_data):
    warm_start, _ = state_in(bundles)
    flip_byte(warm_start.state)
    loop = open_loop(world_data, load_config(published[0]))
    with pytest.raises(InvalidBundleError, match="found another sha256"):
        warm_start.restore(warm_ids_of(world_data), loop.towers, loop.optimizers)


@pytest.mark.parametrize(("before", "after"), [("random", "random"), ("random", "auto")])
def test_warm_start_that_may_know_test_items_is_noted(world, tmp_path, before, after):
    """A random split changes with the data, and another one holds out other interactions."""
    bundles = tmp_path / "bundles"
    for split, options in ((before, ()), (after, ("--warm-from", "current"))):
        config = write_config(tmp_path / "run.toml", FIRST | {"data": {"split": split}})
        assert run(world, bundles, config, *options, "--force") == 0
    notes = read_manifest(BundleRegistry(bundles).current()).metrics["test"]["notes"]
    assert notes[-1].startswith("the metrics are too high")


def test_warm_start_with_the_same_split_has_no_note(world, published, bundles):
    config, _ = published
    assert run(world, bundles, config, "--warm-from", "current", "--force") == 0
    notes = read_manifest(BundleRegistry(bundles).current()).metrics["test"]["notes"]
    assert not any("too high" in note for note in notes)
