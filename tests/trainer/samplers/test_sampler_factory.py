import math
import tomllib
from typing import get_args

import numpy as np
import pytest

from index.cluster_map import ClusterMap
from tests.support.sampler_contexts import config_of, train_tiny
from trainer.config import validate_config
from trainer.config_docs import example_config
from trainer.sampler_factory import build_sampler
from trainer.samplers.config import SamplerConfig

PARTS = get_args(get_args(SamplerConfig)[0])
NAMES = [get_args(config_class.model_fields["name"].annotation)[0] for config_class in PARTS]


@pytest.mark.parametrize("name", NAMES)
def test_build_sampler_every_name_trains(name, tmp_path):
    has_bank = name in ("cross-batch", "popularity-bank")
    settings = {"size": 64, "warmup_steps": 0} if has_bank else {}  # it is full from step 1
    config = config_of({"name": name, **settings}, epochs=3)
    sampler = build_sampler(config.training.sampler, by_parity(40))
    trained = train_tiny(tmp_path, sampler, config)
    losses = [row["loss"] for row in trained.progress.curve]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[2] < min(losses[:2])


def by_parity(items):
    """Cluster map of the planted dataset: even and odd items, in cells of four."""
    rows = np.arange(items)
    codes = (rows % 2).astype(np.int32), (rows // 8).astype(np.int32)
    return ClusterMap(*codes, np.eye(2, dtype=np.float32), rows.astype(np.uint64))


def test_build_sampler_returns_new_instances():
    config = config_of({"name": "cross-batch"}).training.sampler
    assert build_sampler(config) is not build_sampler(config)


def test_sampler_config_fields_have_descriptions():
    for config_class in PARTS:
        assert config_class.__doc__
        assert all(f.description for name, f in config_class.model_fields.items() if name != "name")


def test_example_config_sampler_blocks_are_valid():
    section = example_config().split("[training.sampler]")[1].split("\n\n")[0]
    blocks = [block.replace("# name", "name") for block in section.split("\n#\n")]
    names_in_example = []
    for block in blocks:
        keys = [line.removeprefix("# ") for line in block.splitlines() if " = " in line]
        values = tomllib.loads("\n".join(keys))
        config_class = validate_config(
            {"training": {"sampler": values}}, "explained"
        ).training.sampler
        assert config_class.model_dump() == values
        names_in_example.append(config_class.name)
    assert sorted(names_in_example) == sorted(NAMES)
