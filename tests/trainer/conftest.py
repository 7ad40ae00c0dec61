import pytest
import torch

from index.storage.address import VARIABLES
from tests.support.tiny_dataset import write_tiny_world
from trainer.data.dataset import load_dataset


@pytest.fixture(scope="session", autouse=True)
def single_thread():
    """Limit torch to one thread, the default of a run: tiny tensors do not gain from more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_redis_from_environment():
    """Ignore a store that the developer's environment configures."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A planted world of 80 items per parity, so that 50 candidates are a subset."""
    folder = tmp_path_factory.mktemp("world")
    write_tiny_world(folder, users=120, items=160)
    return folder


@pytest.fixture(scope="session")
def world_data(world):
    return load_dataset(world)
