import pytest

from tests.support.added_items import write_items
from tests.support.synthetic_bundle import handmade_map, publish_handmade


@pytest.fixture
def bundles(tmp_path):
    """A registry with one bundle that has an item encoder."""
    folder = tmp_path / "bundles"
    publish_handmade(folder, with_content=True, clusters=handmade_map())
    return folder


@pytest.fixture
def items(tmp_path):
    return write_items(tmp_path / "items")
