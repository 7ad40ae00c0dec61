"""Refit: the published model is trained on all interactions, the metrics are those of another."""

import hashlib
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from index.bundle.manifest import read_manifest
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map_stores import open_cluster_maps
from index.errors import TrainingError
from tests.support.redis_server import wait_until
from tests.support.trainer_maps import QUICK, SAMPLER
from tests.support.training_runs import (
    arguments,
    run,
    start_trainer,
    wait_until_in_mid_epoch,
    write_config,
)
from trainer.checkpoint import Progress
from trainer.comparison import compare_bundles, get_refit, render_comparison
from trainer.config import load_config
from trainer.data.dataset import load_dataset
from trainer.esans.build_map import build_cluster_map
from trainer.pipeline import RunOptions, is_current
from trainer.refit import (
    Evaluated,
    load_evaluated,
    refit_config,
    save_evaluated,
    use_all_interactions,
)
from trainer.sampler_factory import build_sampler
from trainer.train_loop import train
from trainer.training_data import build_training_data

NOTE = "the metrics are those of the model before the refit"


def write_esans(path, **training):
    sections = {"training": {"batch_size": 64, "epochs": 2} | training}
    return write_config(path, QUICK | sections | {"training.sampler": SAMPLER})


def current(bundles):
    return BundleRegistry(bundles).current()


def weights_of(bundles):
    return (current(bundles) / "towers.safetensors").read_bytes()


def state_of(bundles):
    """Digest of each tensor of the current bundle's training state; the file is not canonical."""
    digest = read_manifest(current(bundles)).run["training"]["state"]["sha256"]
    tensors = load_file(BundleRegistry(bundles).state_path(digest))
    return {name: hashlib.sha256(tensor.numpy()).hexdigest() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    assert run(world, folder / "bundles", write_esans(folder / "run.toml")) == 0
    return folder / "bundles"


@pytest.fixture(scope="module")
def refitted(world, plain, tmp_path_factory):
    """The run of `plain` with a refit, published after it."""
    bundles = tmp_path_factory.mktemp("refitted") / "bundles"
    shutil.copytree(plain, bundles)
    assert run(world, bundles, plain.parent / "run.toml", "--refit") == 0
    return bundles


def test_refit_has_the_metrics_of_the_run_before(plain, refitted):
    before, after = (read_manifest(current(bundles)) for bundles in (plain, refitted))
    for key in ("model", "popularity", "intervals", "buckets"):
        assert after.metrics["test"][key] == before.metrics["test"][key]
    for key in ("best_epoch", "validation_recall@50", "steps"):
        assert after.run["training"][key] == before.run["training"][key]
    assert state_of(refitted) == state_of(plain)


def test_refit_is_recorded_beside_the_metrics(plain, refitted, world_data):
    manifest = read_manifest(current(refitted))
    epochs = manifest.run["training"]["best_epoch"]
    count = len(world_data.interactions.parts)
    assert get_refit(manifest) == {"epochs": epochs, "interactions": count}
    assert NOTE in manifest.metrics["test"]["notes"][-1]
    assert get_refit(read_manifest(current(plain))) is None
    comparison = compare_bundles(current(plain), current(refitted))
    assert comparison.notes.keys() == {"new"}
    assert f"new: {NOTE}" in render_comparison(comparison)


def test_refit_equals_a_training_on_all_interactions(plain, refitted, world_data):
    config, data = load_config(plain.parent / "run.toml"), use_all_interactions(world_data)
    bundle = open_bundle(current(refitted))  # also replays the self-test
    epochs = get_refit(bundle.manifest)["epochs"]
    clusters = build_cluster_map(data, config.clusters, config.seed, datetime.now(UTC))
    assert np.array_equal(bundle.clusters.codes1, clusters.codes1)
    sampler = build_sampler(config.training.sampler, clusters)
    trained = train(build_training_data(data, config), sampler, refit_config(config, epochs))
    saved = load_file(bundle.folder / "towers.safetensors")
    for name, weight in trained.towers.state_dict().items():
        assert torch.equal(weight, saved[name])
    assert bundle.counts.sum() == len(data.interactions.parts)


def test_skip_if_same_distinguishes_refitted_bundles(world, plain, refitted, capsys):
    config = plain.parent / "run.toml"
    assert run(world, refitted, config, "--skip", "if-same", "--refit") == 0
    assert "the current bundle has the same data and configuration" in capsys.readouterr().out
    options = RunOptions(world, refitted, open_cluster_maps(None, refitted, "x"))
    data, loaded = load_dataset(world), load_config(config)
    assert is_current(loaded, data, replace(options, refit=True))
    assert not is_current(loaded, data, options)


@pytest.mark.parametrize("phase", ["evaluated", "refit"])
def test_killed_refit_resumes_to_identical_weights(world, refitted, tmp_path, capsys, phase):
    bundles, config = tmp_path / "bundles", write_esans(tmp_path / "run.toml")
    often = write_esans(tmp_path / "often.toml", checkpoint_interval_s=0)
    first = start_trainer(*arguments(world, bundles, often, "--refit"))
    if phase == "evaluated":
        wait_until_in_mid_epoch(first, bundles)
    else:
        wait_until(lambda: len(list(bundles.glob(".checkpoints/*.safetensors"))) == 2)
    first.kill()  # SIGKILL
    first.communicate()
    assert BundleRegistry(bundles).versions() == []
    assert run(world, bundles, config, "--refit") == 0
    output = "".join(capsys.readouterr())
    assert output.count("resuming from epoch") == 1
    assert ("validation recall@50" in output) == (phase == "evaluated")
    assert weights_of(bundles) == weights_of(refitted)
    assert state_of(bundles) == state_of(refitted)
    metrics = [read_manifest(current(folder)).metrics for folder in (bundles, refitted)]
    assert metrics[0] == metrics[1]
    assert list((bundles / ".checkpoints").iterdir()) == []


def test_evaluated_results_are_loaded_or_reported(tmp_path):
    path, evaluated = tmp_path / "kept.json", Evaluated({"cases": 3}, Progress(best_epoch=1))
    assert load_evaluated(path) is None
    save_evaluated(path, evaluated)
    assert load_evaluated(path) == evaluated
    path.write_text("{}")
    with pytest.raises(TrainingError, match="delete it to start over"):
        load_evaluated(path)
