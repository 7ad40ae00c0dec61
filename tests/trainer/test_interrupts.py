"""Ctrl-C and SIGTERM end a command with one line."""

import os
import signal

import pytest

from tests.support.training_runs import (
    DEADLINE_S,
    arguments,
    start_trainer,
    wait_until_in_mid_epoch,
    write_config,
)
from tests.support.training_shops import write_shop


def end(process, number):
    """Send a signal; return the exit status and the last line of the output."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in output
    return process.returncode, output.splitlines()[-1]


def test_stopped_training_says_what_was_saved(world, tmp_path):
    training = {"batch_size": 8, "epochs": 9_999, "patience": 1_000, "checkpoint_interval_s": 0}
    config = write_config(tmp_path / "run.toml", {"training": training})
    process = start_trainer(*arguments(world, tmp_path / "bundles", config))
    wait_until_in_mid_epoch(process, tmp_path / "bundles")
    status, line = end(process, signal.SIGINT)
    assert status == 130
    assert line.startswith("stopped by SIGINT: saved up to epoch ")
    assert line.endswith("the same command resumes there")


@pytest.mark.parametrize(
    ("command", "number"), [("run", signal.SIGTERM), ("clusters", signal.SIGINT)]
)
def test_stopped_reading_says_that_nothing_was_saved(tmp_path, command, number):
    shop, bundles = write_shop(tmp_path), tmp_path / "bundles"
    bundles.mkdir()
    (shop / "interactions.parquet").unlink()
    pipe = shop / "interactions.csv"
    os.mkfifo(pipe)
    options = {
        "run": ["--data", str(shop), "--bundles", str(bundles)],
        "clusters": ["--data", str(shop)],
    }
    process = start_trainer(command, *options[command])
    with pipe.open("w"):  # opens when the command reads it, which then waits for content
        status, line = end(process, number)
    assert (status, line) == (128 + number, f"stopped by {number.name}: nothing was saved")
