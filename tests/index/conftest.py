import shutil

import pytest

from index.bundle import open_bundle
from index.shelf import Shelf
from tests.handmade import publish_handmade


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The folder of a published bundle; look, but do not touch."""
    bundles = tmp_path_factory.mktemp("bundles")
    publish_handmade(bundles)
    return Shelf(bundles).current()


@pytest.fixture(scope="session")
def tiny_bundle(published):
    return open_bundle(published)


@pytest.fixture
def copied(published, tmp_path):
    """A copy of the bundle's folder, free to be spoilt."""
    return shutil.copytree(published, tmp_path / published.name)
