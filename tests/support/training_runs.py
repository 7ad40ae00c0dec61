"""Helpers that call `python -m trainer` with a small configuration."""

import json
import subprocess
import time

import pytest
from safetensors import safe_open

from tests.support.preforked import start
from trainer.__main__ import main

DEADLINE_S = 120
TINY = {
    "towers": {"embedding_dim": 16, "history_length": 8, "id_dropout": 0.1, "id_init_std": 0.2},
    "training": {
        "device": "cpu",
        "batch_size": 64,
        "epochs": 3,
        "temperature": 0.1,
        "learning_rate": 0.005,
        "dense_weight_decay": 0.0,
    },
    "training.sampler": {"name": "in-batch"},  # needs no cluster map
}


def write_config(path, sections=None):
    """Write TINY as TOML, with the keys of `sections` overridden."""
    changed = {name: TINY.get(name, {}) | (sections or {}).get(name, {}) for name in SECTIONS}
    changed = {name: values for name, values in changed.items() if values}
    lines = []
    for name, values in changed.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


SECTIONS = ("data", "towers", "clusters", "training", "training.sampler", "evaluation", "bundle")


def arguments(data, bundles, config, *more):
    """Command-line arguments of `run`."""
    return [
        *("run", "--data", str(data), "--bundles", str(bundles), "--config", str(config)),
        *more,
    ]


def run(data, bundles, config, *more):
    """Run the command in this process; its exit status."""
    return main(arguments(data, bundles, config, *more))


def start_trainer(*options):
    """Start the command in a separate process."""
    return start("trainer", *options, stderr=subprocess.STDOUT)


def progress_in(bundles):
    """Progress in the checkpoint on disk, None before the first one."""
    for path in bundles.glob(".checkpoints/*.safetensors"):
        with safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()["progress"])
    return None


def wait_until_in_mid_epoch(process, bundles):
    for _ in range(DEADLINE_S * 50):
        progress = progress_in(bundles)
        if progress and progress["epoch"] == 0 and progress["batch"] >= 3:
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    pytest.fail(f"no checkpoint in mid-epoch within {DEADLINE_S} s")
