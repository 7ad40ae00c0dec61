import pytest
import torch

from index.storage.address import VARIABLES
from tests.support.tiny_dataset import write_tiny_world
from trainer.data.dataset import load_dataset


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As a run has it by default: tiny tensors gain nothing from more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_redis_but_the_tests_own():
    """A store that a developer's shell names is no test's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A planted world in which 50 answers are few: 80 items of each parity."""
    folder = tmp_path_factory.mktemp("world")
    write_tiny_world(folder, users=120, items=160)
    return folder


@pytest.fixture(scope="session")
def world_data(world):
    return load_dataset(world)
