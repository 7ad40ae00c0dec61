import pytest

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.errors import InvalidBundleError
from tests.support.training_runs import run, write_config

SAMPLER = {"name": "esans", "easy": 16, "hard": 1}


@pytest.fixture(scope="module")
def bundles(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("esans")
    config = write_config(folder / "run.toml", {"training.sampler": SAMPLER})
    assert run(world, folder / "bundles", config) == 0
    return folder / "bundles"


def test_bundle_contains_the_training_cluster_map(bundles, world_data):
    bundle = open_bundle(BundleRegistry(bundles).current())
    assert len(bundle.clusters) == len(world_data.item_ids)
    assert [card["version"] for card in bundle.manifest.cluster_maps] == [bundle.clusters.version]


def test_open_bundle_rejects_modified_cluster_map(bundles):
    path = BundleRegistry(bundles).current() / "cluster_map.codes1.npy"
    original = path.read_bytes()
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(InvalidBundleError, match=r"cluster_map\.codes1\.npy"):
        open_bundle(path.parent)
    path.write_bytes(original)


def test_bundle_without_map_sampler_has_no_cluster_map(world, tmp_path):
    config = write_config(tmp_path / "run.toml", {"training": {"epochs": 1}})
    assert run(world, tmp_path / "bundles", config, "--force") == 0
    folder = BundleRegistry(tmp_path / "bundles").current()
    assert open_bundle(folder).clusters is None
    assert not list(folder.glob("cluster_map*"))
