import math
import tomllib
from typing import get_args

import numpy as np
import pytest

from index.cluster_map import ClusterMap
from tests.support.sampler_contexts import config_of, train_tiny
from trainer.config import check_config
from trainer.config_docs import example_config
from trainer.sampler_factory import build_sampler
from trainer.samplers.config import SamplerConfig

PARTS = get_args(get_args(SamplerConfig)[0])
NAMES = [get_args(part.model_fields["name"].annotation)[0] for part in PARTS]


@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_trains_the_planted_world(name, tmp_path):
    settings = {"size": 64, "warmup_steps": 0} if name == "cross-batch" else {}  # full from step 1
    config = config_of({"name": name, **settings}, epochs=3)
    sampler = build_sampler(config.training.sampler, by_parity(40))
    trained = train_tiny(tmp_path, sampler, config)
    losses = [row["loss"] for row in trained.progress.curve]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[2] < min(losses[:2])


def by_parity(items):
    """A cluster map of the planted world: even and odd items, in cells of four."""
    rows = np.arange(items)
    codes = (rows % 2).astype(np.int32), (rows // 8).astype(np.int32)
    return ClusterMap(*codes, np.eye(2, dtype=np.float32), rows.astype(np.uint64))


def test_a_sampler_is_built_anew_each_time():
    config = config_of({"name": "cross-batch"}).training.sampler
    assert build_sampler(config) is not build_sampler(config)


def test_every_field_of_every_sampler_says_what_it_does():
    for part in PARTS:
        assert part.__doc__
        assert all(f.description for name, f in part.model_fields.items() if name != "name")


def test_what_is_explained_of_each_sampler_can_be_used_as_it_stands():
    section = example_config().split("[training.sampler]")[1].split("\n\n")[0]
    blocks = [block.replace("# name", "name") for block in section.split("\n#\n")]
    found = []
    for block in blocks:
        keys = [line.removeprefix("# ") for line in block.splitlines() if " = " in line]
        values = tomllib.loads("\n".join(keys))
        part = check_config({"training": {"sampler": values}}, "explained").training.sampler
        assert part.model_dump() == values
        found.append(part.name)
    assert sorted(found) == sorted(NAMES)
