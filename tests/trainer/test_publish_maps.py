"""`clusters --publish`, and what a run publishes of its map, as a person gives the commands."""

import io
from contextlib import redirect_stdout

import pytest

from index.bundle.manifest import read_manifest
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map_io import save_cluster_map
from index.cluster_map_registry import open_cluster_maps
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
    """The bundles of a run that follows nothing, and what it said."""
    return bundles_of(world, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def lonely(world, tmp_path_factory):
    """The bundles of a run that found nothing to follow, and what it said."""
    return bundles_of(world, tmp_path_factory.mktemp("lonely"), "--follow")


def bundles_of(world, folder, *words):
    said = io.StringIO()
    with redirect_stdout(said):
        assert run(world, folder / "bundles", write_esans(folder), *words) == 0
    return folder / "bundles", said.getvalue()


def store_beside(bundles):
    return open_cluster_maps(None, bundles / "clusters")


@pytest.fixture
def bundles(tmp_path):
    return tmp_path / "bundles"


@pytest.fixture
def beside(bundles):
    return store_beside(bundles)


def publish(*words):
    return main(["clusters", "--publish", *map(str, words)])


def test_a_map_is_made_described_published_and_named(world, bundles, beside, capsys):
    assert publish("--data", world, "--bundles", bundles) == 0
    pointer, told = beside.pointer(), capsys.readouterr().out
    assert "perplexity" in told
    assert f"cluster map {pointer.version} is current, sequence {pointer.sequence}" in told
    assert len(beside.read(pointer.version)) == 160


def test_a_pin_keeps_a_timers_map_from_becoming_current_and_that_is_told(
    world, world_data, bundles, beside, capsys
):
    pinned = map_of(world_data, 1)
    beside.publish(pinned)
    beside.pin()
    assert publish("--data", world, "--bundles", bundles) == 0
    told = capsys.readouterr().out
    assert "is stored, but not current" in told
    assert f"{pinned.version} is pinned" in told
    assert beside.pointer().version == pinned.version
    (stored,) = {one.version for one in beside.listed()} - {pinned.version}
    assert f"cluster map {stored} is stored" in told


def test_a_saved_map_is_published_as_it_is(world_data, tmp_path, bundles, beside):
    found = map_of(world_data, 1)
    save_cluster_map(found, tmp_path / "map")
    assert publish("--from", tmp_path / "map", "--bundles", bundles) == 0
    assert beside.pointer().version == found.version
    assert beside.read(found.version).made == found.made


def test_without_a_store_nothing_is_made_and_the_options_are_named(tmp_path, capsys):
    assert publish("--data", tmp_path / "not even there") == 1
    told = capsys.readouterr().err
    assert "clusters --publish: found no address of a store, expected --redis URL" in told
    assert "--bundles DIR or ESANS_REDIS_URL" in told


def test_a_store_that_is_no_folder_is_told_before_the_work(tmp_path, capsys):
    (tmp_path / "clusters").write_text("a file")
    assert publish("--data", tmp_path / "not even there", "--bundles", tmp_path) == 1
    told = capsys.readouterr().err
    assert "expected a folder of cluster maps" in told
    assert "Traceback" not in told


def test_a_saved_map_alone_is_nothing_to_do(tmp_path, capsys):
    assert main(["clusters", "--from", str(tmp_path)]) == 1
    assert "expected beside --publish" in capsys.readouterr().err


def test_a_run_publishes_the_map_of_its_bundle(plain):
    bundles, said = plain
    bundle, store = open_bundle(BundleRegistry(bundles).current()), store_beside(bundles)
    pointer = store.pointer()
    assert pointer.version == bundle.clusters.version
    assert store.read(pointer.version).made == bundle.clusters.made
    assert [card.keys() & {"from_step"} for card in bundle.manifest.cluster_maps] == [set()]
    assert f"cluster map {pointer.version} is current" in said


def test_a_run_that_finds_nothing_to_follow_leaves_its_own_map(lonely):
    bundles, said = lonely
    (told,) = read_manifest(BundleRegistry(bundles).current()).cluster_maps
    assert (told["from_step"], told["sequence"]) == (0, None)
    assert store_beside(bundles).pointer().version == told["version"]
    assert "nothing is published; the run begins with its own map" in said


def test_following_changes_nothing_where_the_map_is_the_same(plain, lonely):
    one, other = (BundleRegistry(bundles).current() for bundles, _ in (plain, lonely))
    name = "towers.safetensors"
    assert (one / name).read_bytes() == (other / name).read_bytes()


def test_a_run_whose_sampler_draws_from_no_map_publishes_none(world, bundles, beside, tmp_path):
    plain = write_config(tmp_path / "plain.toml", QUICK)
    assert run(world, bundles, plain) == 0
    assert beside.pointer() is None
    assert not beside.blobs.folder.exists()


def test_a_store_that_is_away_costs_a_run_a_line_and_nothing_more(world, bundles, config, capsys):
    bundles.mkdir()
    (bundles / "clusters").write_text("a file")
    assert run(world, bundles, config) == 0
    told, bundle = capsys.readouterr().out, BundleRegistry(bundles).current()
    assert "warning: " in told
    assert f"python -m trainer clusters --publish --from {bundle}" in told
    (bundles / "clusters").unlink()
    assert publish("--from", bundle, "--bundles", bundles) == 0  # as the line says


def test_a_followed_map_is_in_the_bundle_and_the_store_is_left_as_it_was(
    world, world_data, bundles, beside, config
):
    found = map_of(world_data, 1)
    before = beside.publish(found)
    assert run(world, bundles, config, "--follow") == 0
    bundle = open_bundle(BundleRegistry(bundles).current())
    (told,) = bundle.manifest.cluster_maps
    assert (told["from_step"], told["sequence"]) == (0, before.sequence)
    assert told["version"] == bundle.clusters.version == found.version
    assert beside.pointer() == before


def test_following_without_a_map_to_draw_from_is_refused_with_the_remedy(tmp_path, bundles, capsys):
    plain = write_config(tmp_path / "plain.toml", QUICK)
    assert run(tmp_path / "not even there", bundles, plain, "--follow") == 1
    told = capsys.readouterr().err
    assert "the sampler in-batch draws from no cluster map" in told
    assert "leave --follow out, or say" in told
