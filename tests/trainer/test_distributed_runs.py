"""Whole runs on two ranks without a shared disk: failures, signals, restarts and resuming."""

import re
import shutil

import pytest

from index.bundle.registry import BundleRegistry
from tests.support.ranks import kill_rank, launch_trainer, wait_for_step
from tests.support.training_runs import DEADLINE_S, arguments, write_config
from tests.support.training_shops import write_shop

pytestmark = pytest.mark.e2e

ESANS = {
    "clusters": {"alignment_epochs": 1},
    "training": {"batch_size": 16, "epochs": 2, "patience": 2, "checkpoint_interval_s": 0},
    "training.sampler": {"name": "esans", "in_batch": True},
}
UNREACHABLE = "redis://127.0.0.1:1"


def prepare(folder, data, config):
    """Give each rank its own copy of the dataset, and both the same configuration."""
    for rank in (0, 1):
        (folder / f"rank{rank}").mkdir(parents=True)
        shutil.copytree(data, folder / f"rank{rank}" / "shop")
    write_config(folder / "run.toml", config)
    return arguments("shop", "bundles", folder / "run.toml")


def finish(process):
    """Wait for the end; the exit status and the output."""
    output, _ = process.communicate(timeout=DEADLINE_S)
    return process.returncode, output


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "shop").mkdir()
    return write_shop(tmp_path / "shop")


def weights_in(folder):
    bundle = BundleRegistry(folder / "rank0" / "bundles").current()
    return (bundle / "towers.safetensors").read_bytes()


@pytest.mark.slow
def test_killed_ranks_resume_to_weights_of_undisturbed_run(world, tmp_path):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    command = [*prepare(calm, world, ESANS), "--follow", "--redis", UNREACHABLE]
    status, output = finish(launch_trainer(calm, *command))
    assert (status, output.count("epoch 2: loss")) == (0, 1), output
    assert output.count("the run begins with its own map") == 1
    assert BundleRegistry(calm / "rank1" / "bundles").versions() == []

    prepare(killed, world, ESANS)
    bundles = killed / "rank0" / "bundles"
    with launch_trainer(killed, *command, restarts=1) as process:
        for rank, step in ((1, 5), (0, 60)):
            wait_for_step(process, bundles, step)
            kill_rank(process, rank)
        status, output = finish(process)
    assert status != 0
    assert output.count("resuming from epoch") == 1, output

    status, output = finish(launch_trainer(killed, *command))
    assert (status, output.count("resuming from epoch")) == (0, 1), output
    assert weights_in(killed) == weights_in(calm)


@pytest.mark.slow
def test_error_of_a_rank_ends_all_with_single_message(world, tmp_path):
    command = prepare(tmp_path, world, {})
    (tmp_path / "rank0" / "shop" / "items.parquet").unlink()
    status, output = finish(launch_trainer(tmp_path, *command))
    assert status != 0
    assert len(re.findall("faults? found", output)) == 1, output
    assert "lost the connection" not in output


@pytest.mark.slow
def test_ranks_with_different_data_are_rejected(world, shop, tmp_path):
    command = prepare(tmp_path, world, {})
    shutil.rmtree(tmp_path / "rank1" / "shop")
    shutil.copytree(shop, tmp_path / "rank1" / "shop")
    status, output = finish(launch_trainer(tmp_path, *command))
    assert status != 0
    assert output.count("copy the same files to every machine") == 1, output


def test_error_of_all_ranks_is_printed_once(shop, tmp_path):
    command = prepare(tmp_path, shop, {"training": {"batch_size": 0}})
    status, output = finish(launch_trainer(tmp_path, *command))
    assert status != 0
    assert output.count("invalid configuration") == 1, output
