"""Steps that two ranks and a single process take alike, and their launch with torchrun.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python -m tests.support.ranks DATA OUT DEVICE
"""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from index.cluster_map_stores import open_cluster_maps
from index.errors import TrainingError
from tests.conftest import ROOT
from tests.support.preforked import start
from tests.support.redis_server import free_port, wait_until
from tests.support.trainer_maps import (
    RecordingSampler,
    esans_config,
    map_of,
    publishing,
    swapped_versions,
)
from tests.support.training_data import tiny_config
from tests.support.training_runs import DEADLINE_S, progress_in
from trainer.data.dataset import load_dataset
from trainer.distributed import is_main_rank, join_ranks
from trainer.sampler_factory import build_sampler, open_sampler
from trainer.train_loop import TrainLoop, train
from trainer.training_data import TrainingBatch, build_training_data

ESANS = {"name": "esans", "easy": 8, "hard": 4, "in_batch": True, "log_q_share": 1.0}
SAMPLERS = {  # name -> configuration, steps
    "in-batch": ({}, 200),
    "esans": (ESANS, 200),
    "esans, histories": (ESANS | {"in_batch_histories": 60}, 5),
    "in-batch-uncorrected": ({}, 5),
    "full": ({}, 5),
    "uniform": ({"count": 64}, 5),
    "popularity": ({"count": 64}, 5),
    "mixed": ({"count": 64}, 5),
    "cross-batch": ({"size": 100, "warmup_steps": 2}, 10),
    "popularity-bank": ({"count": 64, "size": 100, "warmup_steps": 2}, 10),
    "dns": ({"count": 64, "kept": 8}, 5),
    "batch-mix": ({"count": 16}, 5),
    "positive-mixing": ({"count": 64, "candidates": 4, "kept": 3}, 5),
}
UNEVEN_BATCHES = (3, 2, 1)  # rows; of one row without history, a rank has no row and no item


def step_losses(data, device, name):
    """Losses of the first steps with a sampler, norms of the last gradients, digest of the weights.

    Adam hides a gradient of the wrong size, so that the losses alone would not show one.
    """
    sampler, steps = SAMPLERS[name]
    config = tiny_config(device=device, precision="float32", sampler={"name": name} | sampler)
    return take_steps(data, config, steps)


def unordered_losses(data, device):
    """Losses on data without order, whose histories are resampled in each epoch."""
    interactions = dataclasses.replace(data.interactions, is_ordered=False)
    config = tiny_config(device=device, precision="float32")
    return take_steps(dataclasses.replace(data, interactions=interactions), config, 20)


def take_steps(data, config, steps):
    torch.set_num_threads(1)
    training_data = build_training_data(data, config)
    loader = training_data.loader
    loop = TrainLoop(training_data, build_sampler(config.training.sampler, map_of(data, 1)), config)
    batches = (batch for epoch in count() for batch in loader.epoch(epoch))
    losses = [loop.take_step(batch) for batch in islice(batches, steps)]
    gradients = [weight.grad for weight in loop.towers.parameters() if weight.grad is not None]
    norms = [float(gradient.norm()) for gradient in gradients]
    uneven = [first_rows(next(batches), rows) for rows in UNEVEN_BATCHES]
    losses += [loop.take_step(batch) for batch in uneven]
    return losses + norms, digest_of(loop.towers)


def first_rows(batch, rows):
    """The first rows of a batch; a single one loses its history."""
    arrays = [getattr(batch, field.name)[:rows] for field in dataclasses.fields(TrainingBatch)]
    first = TrainingBatch(*arrays)
    return first if rows > 1 else dataclasses.replace(first, mask=np.zeros_like(first.mask))


def digest_of(towers):
    weights = b"".join(weight.cpu().numpy().tobytes() for weight in towers.state_dict().values())
    return hashlib.sha256(weights).hexdigest()


def follow_on_ranks(data, folder):
    """Steps and versions of the swaps of a run in whose sixth step a second map is published."""
    store, config = open_cluster_maps(None, folder / "clusters"), esans_config()
    actions = {}
    if is_main_rank():
        store.publish(map_of(data, 1))
        actions = {5: publishing(store, map_of(data, 2))}
    with open_sampler(data, config, store, poll_s=0.05) as sampler:
        recorder = RecordingSampler(sampler, actions)
        trained = train(build_training_data(data, config), recorder, config)
    return swapped_versions(trained), recorder.versions, digest_of(trained.towers)


def diverges(data, device):
    """Whether the loss is an error here if only the main rank has weights that are not finite."""
    config = tiny_config(device=device)
    loop = TrainLoop(
        build_training_data(data, config), build_sampler(config.training.sampler), config
    )
    if is_main_rank():
        loop.towers.user.keys.bias.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="the loss is nan"):
        loop.take_step(next(loop.data.loader.epoch(0)))
    return True


def start_ranks(*arguments):
    """Start this module on two ranks, without torchrun; returns their processes."""
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | group
    return [
        start(
            "tests.support.ranks",
            *arguments,
            environment=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.STDOUT,
        )
        for rank in (0, 1)
    ]


def launch(*command, ranks=2, **options):
    """Start a module on several ranks of this machine; returns the process of torchrun."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", *command),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def launch_trainer(folder, *options, restarts=0):
    """Start the trainer on two ranks in the folders `rank0` and `rank1`, as on two machines."""
    command = 'cd "$0/rank$RANK" && exec "$@"'
    shell = ["--max-restarts", str(restarts), "--no-python", "sh", "-c", command, str(folder)]
    return launch(*shell, sys.executable, "-m", "trainer", *options)


def kill_rank(process, rank):
    """Send SIGKILL to a rank that torchrun started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in children:
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            os.kill(int(pid), signal.SIGKILL)
            return
    raise LookupError(f"torchrun runs no rank {rank}")


def wait_for_step(process, bundles, step):
    """Wait until a checkpoint of this step or a later one is on disk."""

    def is_saved():
        assert process.poll() is None, process.communicate()[0]
        with suppress(RuntimeError):  # replaced while it was opened
            progress = progress_in(bundles)
            return progress and progress["step"] >= step
        return False

    wait_until(is_saved, DEADLINE_S)


def main(data, out, device):
    """Write what this rank computed to the file RANK.json."""
    dataset = load_dataset(Path(data))
    with join_ranks():
        results = {name: step_losses(dataset, device, name) for name in SAMPLERS}
        results["unordered"] = unordered_losses(dataset, device)
        results["follow"] = follow_on_ranks(dataset, Path(out))
        results["diverges"] = diverges(dataset, device)
        Path(out, f"{dist.get_rank()}.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
