import pytest

from tests.support.http_caller import running
from tests.support.synthetic_bundle import publish_handmade


@pytest.fixture(scope="session")
def bundles_folder(tmp_path_factory):
    """Folder with one published bundle; read-only."""
    folder = tmp_path_factory.mktemp("bundles")
    publish_handmade(folder)
    return folder


@pytest.fixture(scope="session")
def caller(bundles_folder):
    """Caller of an app whose bundle is live."""
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        yield caller


@pytest.fixture
def empty(tmp_path):
    """Caller of an app without a bundle."""
    with running(tmp_path) as caller:
        caller.wait_for("no bundle")
        yield caller
