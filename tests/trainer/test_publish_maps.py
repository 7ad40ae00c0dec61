"""Publishing of cluster maps to a folder: `clusters --publish` and `run`."""

import io
from contextlib import redirect_stdout

import pytest

from index.bundle.manifest import read_manifest
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map_io import save_cluster_map
from index.cluster_map_stores import open_cluster_maps
from tests.support.trainer_maps import QUICK, SAMPLER, map_of
from tests.support.training_runs import run, write_config
from trainer.__main__ import main


def write_esans(folder):
    return write_config(folder / "run.toml", QUICK | {"training.sampler": SAMPLER})


@pytest.fixture
def config(tmp_path):
    return write_esans(tmp_path)


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory):
    """Bundles and output of a run without --follow."""
    return bundles_of(world, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def followed_nothing(world, tmp_path_factory):
    """Bundles and output of a run with --follow and an empty store."""
    return bundles_of(world, tmp_path_factory.mktemp("followed_nothing"), "--follow")


def bundles_of(world, folder, *options):
    output = io.StringIO()
    with redirect_stdout(output):
        assert run(world, folder / "bundles", write_esans(folder), *options) == 0
    return folder / "bundles", output.getvalue()


def store_in(bundles):
    return open_cluster_maps(None, bundles / "clusters")


@pytest.fixture
def bundles(tmp_path):
    return tmp_path / "bundles"


@pytest.fixture
def store(bundles):
    return store_in(bundles)


def publish(*options):
    return main(["clusters", "--publish", *map(str, options)])


def test_clusters_publish_builds_describes_and_publishes_map(world, bundles, store, capsys):
    assert publish("--data", world, "--bundles", bundles) == 0
    pointer, output = store.pointer(), capsys.readouterr().out
    assert "perplexity" in output
    assert f"cluster map {pointer.version} is current, sequence {pointer.sequence}" in output
    assert len(store.load(pointer.version)) == 160


def test_clusters_publish_with_pin_does_not_make_map_current(
    world, world_data, bundles, store, capsys
):
    pinned = map_of(world_data, 1)
    store.publish(pinned)
    store.pin()
    assert publish("--data", world, "--bundles", bundles) == 0
    output = capsys.readouterr().out
    assert "is stored, but not current" in output
    assert f"{pinned.version} is pinned" in output
    assert store.pointer().version == pinned.version
    (stored,) = {version.version for version in store.list_maps()} - {pinned.version}
    assert f"cluster map {stored} is stored" in output


def test_clusters_publish_from_folder_publishes_saved_map(world_data, tmp_path, bundles, store):
    saved = map_of(world_data, 1)
    save_cluster_map(saved, tmp_path / "map")
    assert publish("--from", tmp_path / "map", "--bundles", bundles) == 0
    assert store.pointer().version == saved.version
    assert store.load(saved.version).made == saved.made


def test_clusters_publish_repairs_a_damaged_pointer(world_data, tmp_path, bundles, store):
    saved = map_of(world_data, 1)
    save_cluster_map(saved, tmp_path / "map")
    (bundles / "clusters").mkdir(parents=True)
    (bundles / "clusters" / "current").write_text("damaged")
    assert publish("--from", tmp_path / "map", "--bundles", bundles) == 0
    assert store.pointer().version == saved.version


def test_clusters_publish_without_store_names_options(tmp_path, capsys):
    assert publish("--data", tmp_path / "not even there") == 1
    output = capsys.readouterr().err
    assert "clusters --publish: no store is configured, expected --redis URL" in output
    assert "--bundles DIR or ESANS_REDIS_URL" in output


def test_clusters_publish_rejects_store_path_that_is_a_file(tmp_path, capsys):
    (tmp_path / "clusters").write_text("a file")
    assert publish("--data", tmp_path / "not even there", "--bundles", tmp_path) == 1
    output = capsys.readouterr().err
    assert "expected a folder of cluster maps" in output
    assert "Traceback" not in output


def test_clusters_from_without_publish_is_rejected(tmp_path, capsys):
    assert main(["clusters", "--from", str(tmp_path)]) == 1
    assert "add --publish" in capsys.readouterr().err


def test_run_publishes_the_map_of_its_bundle(plain):
    bundles, output = plain
    bundle, store = open_bundle(BundleRegistry(bundles).current()), store_in(bundles)
    pointer = store.pointer()
    assert pointer.version == bundle.clusters.version
    assert store.load(pointer.version).made == bundle.clusters.made
    assert [card.keys() & {"from_step"} for card in bundle.manifest.cluster_maps] == [set()]
    assert f"cluster map {pointer.version} is current" in output


def test_follow_with_empty_store_publishes_own_map(followed_nothing):
    bundles, output = followed_nothing
    (record,) = read_manifest(BundleRegistry(bundles).current()).cluster_maps
    assert (record["from_step"], record["sequence"]) == (0, None)
    assert store_in(bundles).pointer().version == record["version"]
    assert "nothing is published; the run begins with its own map" in output


def test_follow_with_own_map_trains_identical_weights(plain, followed_nothing):
    weights = [
        (BundleRegistry(bundles).current() / "towers.safetensors").read_bytes()
        for bundles, _ in (plain, followed_nothing)
    ]
    assert weights[0] == weights[1]


def test_run_without_map_sampler_publishes_no_map(world, bundles, store, tmp_path):
    plain = write_config(tmp_path / "plain.toml", QUICK)
    assert run(world, bundles, plain) == 0
    assert store.pointer() is None
    assert not store.blobs.folder.exists()


def test_run_with_unreachable_store_warns_and_succeeds(world, bundles, config, capsys):
    bundles.mkdir()
    (bundles / "clusters").write_text("a file")
    assert run(world, bundles, config) == 0
    output, bundle = capsys.readouterr().out, BundleRegistry(bundles).current()
    assert "warning: " in output
    assert f"python -m trainer clusters --publish --from {bundle}" in output
    (bundles / "clusters").unlink()
    assert publish("--from", bundle, "--bundles", bundles) == 0  # the command of the warning


def test_follow_bundles_followed_map_and_leaves_store_as_is(
    world, world_data, bundles, store, config
):
    followed = map_of(world_data, 1)
    before = store.publish(followed)
    assert run(world, bundles, config, "--follow") == 0
    bundle = open_bundle(BundleRegistry(bundles).current())
    (record,) = bundle.manifest.cluster_maps
    assert (record["from_step"], record["sequence"]) == (0, before.sequence)
    assert record["version"] == bundle.clusters.version == followed.version
    assert store.pointer() == before


def test_follow_without_map_sampler_is_rejected(tmp_path, bundles, capsys):
    plain = write_config(tmp_path / "plain.toml", QUICK)
    assert run(tmp_path / "not even there", bundles, plain, "--follow") == 1
    output = capsys.readouterr().err
    assert "found sampler in-batch, expected one that uses a cluster map" in output
    assert "remove --follow, or set" in output
