"""A run killed by SIGKILL goes on where it was, and ends as if nothing had happened."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from index.bundle.registry import BundleRegistry
from tests.conftest import ROOT
from tests.support.training_runs import arguments, run, write_config
from trainer.config import check_config, read_config
from trainer.data.dataset import load_dataset
from trainer.pipeline import checkpoint_of

DEADLINE_S = 120


def started(*words):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def progress_in(bundles):
    """What the checkpoint on disk says, or None before there is one."""
    for path in bundles.glob(".checkpoints/*.safetensors"):
        with safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()["progress"])
    return None


def wait_until_in_mid_epoch(process, bundles):
    for _ in range(DEADLINE_S * 50):
        found = progress_in(bundles)
        if found and found["epoch"] == 0 and found["batch"] >= 3:
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    pytest.fail(f"no checkpoint in mid-epoch within {DEADLINE_S} s")


def weights_of(bundles):
    return (BundleRegistry(bundles).current() / "towers.safetensors").read_bytes()


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(world, tmp_path):
    training = {"batch_size": 32, "epochs": 2}  # 29 batches an epoch
    often = write_config(
        tmp_path / "often.toml", {"training": training | {"checkpoint_interval_s": 0}}
    )
    never = write_config(tmp_path / "never.toml", {"training": training})
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    first = started(*arguments(world, killed, often))
    wait_until_in_mid_epoch(first, killed)
    first.kill()  # SIGKILL
    first.communicate()
    stopped_at = progress_in(killed)
    assert (stopped_at["epoch"], BundleRegistry(killed).versions()) == (0, [])
    second = started(*arguments(world, killed, often))
    said, _ = second.communicate(timeout=DEADLINE_S)
    assert second.returncode == 0, said
    assert f"going on from epoch 1, batch {stopped_at['batch']}" in said
    assert run(world, undisturbed, never) == 0
    assert weights_of(killed) == weights_of(undisturbed)
    assert list((killed / ".checkpoints").iterdir()) == []


def test_a_truncated_checkpoint_is_named_and_not_trained_over(world, tmp_path, capsys):
    config = write_config(tmp_path / "run.toml")
    path = checkpoint_of(tmp_path, load_dataset(world), read_config(config)).path
    path.parent.mkdir()
    path.write_bytes(b"half")
    assert run(world, tmp_path, config) == 1
    told = capsys.readouterr().err
    assert f"{path}: cannot be read as a checkpoint" in told
    assert "remove it to begin the run anew" in told
    assert path.read_bytes() == b"half"  # it is still there, to be looked at


def test_the_pace_of_checkpoints_is_the_one_training_key_that_makes_no_other_run(world):
    data = load_dataset(world)

    def key_of(seed=0, **training):
        values = {"seed": seed, "training": training}
        return checkpoint_of(Path(), data, check_config(values, "a test")).run_key

    assert key_of() == key_of(checkpoint_interval_s=1)
    assert len({key_of(), key_of(seed=1), key_of(epochs=9), key_of(batch_size=9)}) == 4


def test_a_run_that_follows_a_map_goes_on_from_no_other_kind(world):
    data, config = load_dataset(world), check_config({}, "a test")
    keys = {checkpoint_of(Path(), data, config, follows=one).run_key for one in (True, False)}
    assert len(keys) == 2
