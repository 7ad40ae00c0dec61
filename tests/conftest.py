import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer

ROOT = Path(__file__).parent.parent


@pytest.fixture
def test_data() -> Callable[[str], Path]:
    """Folder of a real dataset by name; the test is skipped where it is absent."""
    base = Path(os.environ.get("TEST_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (base / name).is_dir():
            pytest.skip(f"{name} is not under {base}; set TEST_DATA to the folder that holds it")
        return base / name

    return find


@pytest.fixture
def redis():
    """A Redis server for one test."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.stop()
