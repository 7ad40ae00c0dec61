"""Resuming: a run killed by SIGKILL ends with the weights of an uninterrupted one."""

import json
from datetime import UTC, datetime
from pathlib import Path

from index.bundle.registry import BundleRegistry
from index.cluster_map_io import open_cluster_map
from tests.support.training_runs import (
    arguments,
    progress_in,
    run,
    start_trainer,
    wait_until_in_mid_epoch,
    write_config,
)
from trainer.config import load_config, validate_config
from trainer.data.dataset import load_dataset
from trainer.pipeline import build_checkpoint
from trainer.sampler_factory import build_or_open_map


def weights_of(bundles):
    return (BundleRegistry(bundles).current() / "towers.safetensors").read_bytes()


def test_killed_run_resumes_to_identical_weights(world, tmp_path, capsys):
    training = {"batch_size": 32, "epochs": 2}  # 29 batches per epoch
    often = write_config(
        tmp_path / "often.toml", {"training": training | {"checkpoint_interval_s": 0}}
    )
    never = write_config(tmp_path / "never.toml", {"training": training})
    killed, uninterrupted = tmp_path / "killed", tmp_path / "uninterrupted"
    first = start_trainer(*arguments(world, killed, often))
    wait_until_in_mid_epoch(first, killed)
    first.kill()  # SIGKILL
    first.communicate()
    stopped_at = progress_in(killed)
    assert (stopped_at["epoch"], BundleRegistry(killed).versions()) == (0, [])
    assert run(world, killed, often) == 0
    output = "".join(capsys.readouterr())
    assert f"resuming from epoch 1, batch {stopped_at['batch']}" in output
    assert run(world, uninterrupted, never) == 0
    assert weights_of(killed) == weights_of(uninterrupted)
    assert list((killed / ".checkpoints").iterdir()) == []


def test_killed_run_resumes_with_its_cluster_map(world, tmp_path, capsys):
    values = {"training": {"batch_size": 32, "epochs": 1, "checkpoint_interval_s": 0}}
    sampler = {"training.sampler": {"name": "esans"}, "clusters": {"alignment_epochs": 1}}
    config = write_config(tmp_path / "run.toml", values | sampler)
    killed, uninterrupted = tmp_path / "killed", tmp_path / "uninterrupted"
    first = start_trainer(*arguments(world, killed, config))
    wait_until_in_mid_epoch(first, killed)
    first.kill()  # SIGKILL
    first.communicate()
    (kept,) = killed.glob(".checkpoints/*.map/cluster_map.json")
    made = json.loads(kept.read_text(encoding="utf-8"))["made"]
    assert run(world, killed, config) == 0
    assert "k-means" not in "".join(capsys.readouterr())  # the map was not built again
    assert open_cluster_map(BundleRegistry(killed).current()).made == made
    assert run(world, uninterrupted, config) == 0
    assert weights_of(killed) == weights_of(uninterrupted)
    assert list((killed / ".checkpoints").iterdir()) == []


def test_damaged_kept_cluster_map_is_built_again(world_data, tmp_path):
    config = validate_config({"training": {"sampler": {"name": "esans"}}}, "test")
    built = build_or_open_map(world_data, config, datetime.now(UTC), tmp_path)
    (tmp_path / "cluster_map.codes1.npy").write_bytes(b"half")
    again = build_or_open_map(world_data, config, datetime.now(UTC), tmp_path)
    assert again.version == built.version == open_cluster_map(tmp_path).version


def test_run_rejects_truncated_checkpoint_and_keeps_it(world, tmp_path, capsys):
    config = write_config(tmp_path / "run.toml")
    path = build_checkpoint(tmp_path, load_dataset(world), load_config(config)).path
    path.parent.mkdir()
    path.write_bytes(b"half")
    assert run(world, tmp_path, config) == 1
    output = capsys.readouterr().err
    assert f"{path}: found an unreadable checkpoint" in output
    assert "delete it to start over" in output
    assert path.read_bytes() == b"half"  # it is kept for inspection


def test_run_key_ignores_checkpoint_interval_only(world):
    data = load_dataset(world)

    def key_of(seed=0, **training):
        values = {"seed": seed, "training": training}
        return build_checkpoint(Path(), data, validate_config(values, "a test")).run_key

    assert key_of() == key_of(checkpoint_interval_s=1)
    assert len({key_of(), key_of(seed=1), key_of(epochs=9), key_of(batch_size=9)}) == 4


def test_run_key_depends_on_follow(world):
    data, config = load_dataset(world), validate_config({}, "a test")
    keys = [build_checkpoint(Path(), data, config, follow=flag).run_key for flag in (True, False)]
    assert keys[0] != keys[1]
