"""Cost of virtual negatives in a training step, against encoding as many items.

    OMP_NUM_THREADS=1 python -m benchmarks.edis

CPU time of whole steps, all variants alternating on the same batches in one process, so that
ratios hold on a busy machine too. Generated data, default towers, histories of 50.
"""

import argparse
import time
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import torch
from tabulate import tabulate
from tqdm import tqdm

from trainer.config import validate_config
from trainer.data.dataset import Dataset
from trainer.data.interactions import TRAIN, VALID, Interactions
from trainer.esans.build_map import build_cluster_map
from trainer.sampler_factory import build_sampler
from trainer.train_loop import TrainLoop
from trainer.training_data import TrainingData, build_training_data

BATCH, VIRTUAL = 1_024, 1_024
ITEMS, USERS, TAKEN, WIDTH = 5_000, 2_000, 120, 64
WARM_UP = 3
VARIANTS = {  # name -> the sampler's settings
    "easy pairs": {"easy": VIRTUAL, "hard": 0, "virtual": False},
    "easy pairs, as many virtual": {"easy": VIRTUAL, "hard": 0, "virtual": True},
    "twice the easy pairs": {"easy": 2 * VIRTUAL, "hard": 0, "virtual": False},
    "a hard one per row": {"easy": 0, "hard": 1, "virtual": False},
    "a hard one per row, as many virtual": {"easy": 0, "hard": 1, "virtual": True},
    "two hard ones per row": {"easy": 0, "hard": 2, "virtual": False},
}
AIMS = (
    ("shared virtual negatives", "easy pairs, as many virtual", "easy pairs", "1.20"),
    ("encoding as many items instead", "twice the easy pairs", "easy pairs", ""),
    (
        "virtual negatives per row",
        "a hard one per row, as many virtual",
        "a hard one per row",
        "1.35",
    ),
    ("encoding as many items instead", "two hard ones per row", "a hard one per row", ""),
)


def generate_data(rng: np.random.Generator) -> Dataset:
    """Generate a dataset with two modalities and full-length histories."""
    users = np.repeat(np.arange(USERS, dtype=np.int32), TAKEN)
    items = np.concatenate([rng.choice(ITEMS, TAKEN, replace=False) for _ in range(USERS)])
    parts = np.full(len(users), TRAIN, dtype=np.int8)
    parts[TAKEN - 1 :: TAKEN] = VALID
    ids = [str(row) for row in range(ITEMS)]
    return Dataset(
        item_ids=ids,
        user_ids=[str(row) for row in range(USERS)],
        interactions=Interactions(users, items.astype(np.int32), parts, is_ordered=True),
        modalities={
            name: rng.standard_normal((ITEMS, WIDTH), dtype=np.float32)
            for name in ("textual", "visual")
        },
        attributes=pa.table({"item_id": ids}),
        split="generated",
        notes=(),
        fingerprint="generated",
    )


def loops_of(data: Dataset) -> tuple[TrainingData, dict[str, TrainLoop]]:
    """Build a training loop per variant, on the same map and data."""
    config = validate_config({"training": {"batch_size": BATCH, "device": "cpu"}}, "the benchmark")
    training_data = build_training_data(data, config)
    clusters = build_cluster_map(data, config.clusters, config.seed, datetime.now(UTC))
    loops = {}
    for name, settings in VARIANTS.items():
        training = {
            "sampler": {"name": "esans", "variant": "paper", **settings},
            "batch_size": BATCH,
        }
        chosen = validate_config({"training": training}, name)
        sampler = build_sampler(chosen.training.sampler, clusters)
        loops[name] = TrainLoop(training_data, sampler, chosen)
    return training_data, loops


def time_steps(
    training_data: TrainingData, loops: dict[str, TrainLoop], steps: int
) -> dict[str, float]:
    """Run the same steps with every variant; return the median CPU ms of each."""
    taken: dict[str, list[float]] = {name: [] for name in loops}
    batches = training_data.loader.epoch(0)
    for step in tqdm(range(WARM_UP + steps), desc="steps", unit=" steps"):
        batch = next(batches)
        for name, loop in loops.items():
            start = time.process_time()
            loop.take_step(batch)
            if step >= WARM_UP:
                taken[name].append(1_000 * (time.process_time() - start))
    return {name: float(np.median(values)) for name, values in taken.items()}


def main() -> None:
    """Run all variants; print two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edis", description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="steps per variant (60)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    costs = time_steps(*loops_of(generate_data(np.random.default_rng(0))), args.steps)
    print(tabulate(costs.items(), ["step with", "CPU ms"], floatfmt=".1f"))
    ratios = [(what, f"{costs[ours] / costs[base]:.2f}", aim) for what, ours, base, aim in AIMS]
    print("\n" + tabulate(ratios, ["a step costs", "times", "aim"], disable_numparse=True))


if __name__ == "__main__":
    main()
