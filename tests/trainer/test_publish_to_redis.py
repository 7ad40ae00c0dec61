"""The commands against a real Redis: published there, told where it cannot be."""

import pytest

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map_io import save_cluster_map
from index.cluster_map_registry import open_cluster_maps
from tests.support.redis_server import free_port
from tests.support.trainer_maps import QUICK, SAMPLER, map_of
from tests.support.training_runs import run, write_config
from trainer.__main__ import main


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "run.toml", QUICK | {"training.sampler": SAMPLER})


@pytest.fixture
def saved(world_data, tmp_path):
    found = map_of(world_data, 1)
    save_cluster_map(found, tmp_path / "map")
    return found, tmp_path / "map"


def publish(*words):
    return main(["clusters", "--publish", *map(str, words)])


def store_of(redis, namespace="esans"):
    return open_cluster_maps(redis.url, None, namespace)


def nowhere(password="s3cret"):
    return f"redis://timer:{password}@127.0.0.1:{free_port()}/0"


def test_the_environment_names_the_store_and_the_option_its_namespace(redis, saved, monkeypatch):
    found, folder = saved
    monkeypatch.setenv("ESANS_REDIS_URL", redis.url)
    assert publish("--from", folder, "--namespace", "shop") == 0
    assert store_of(redis, "shop").pointer().version == found.version
    assert store_of(redis).pointer() is None


def test_the_environment_says_as_much_as_it_does_to_the_service(
    redis, saved, tmp_path, monkeypatch
):
    found, folder = saved
    (tmp_path / "url").write_text(f"{redis.url}\n")
    monkeypatch.setenv("ESANS_REDIS_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("ESANS_NAMESPACE", "shop")
    assert publish("--from", folder) == 0
    assert store_of(redis, "shop").pointer().version == found.version
    assert store_of(redis).pointer() is None


def test_a_folder_of_bundles_that_is_named_counts_more_than_the_environment(
    saved, tmp_path, monkeypatch
):
    found, folder = saved
    monkeypatch.setenv("ESANS_REDIS_URL", nowhere())
    assert publish("--from", folder, "--bundles", tmp_path) == 0
    beside = open_cluster_maps(None, tmp_path / "clusters")
    assert beside.pointer().version == found.version


def test_a_run_publishes_its_map_and_the_next_one_follows_it(
    redis, world, tmp_path, config, capsys
):
    assert run(world, tmp_path / "one", config, "--redis", redis.url) == 0
    bundle = open_bundle(BundleRegistry(tmp_path / "one").current())
    before = store_of(redis).pointer()
    assert before.version == bundle.clusters.version
    assert not (tmp_path / "one" / "clusters").exists()
    assert run(world, tmp_path / "two", config, "--redis", redis.url, "--follow") == 0
    (told,) = open_bundle(BundleRegistry(tmp_path / "two").current()).manifest.cluster_maps
    assert (told["version"], told["sequence"]) == (before.version, before.sequence)
    assert f"step 0: negatives come from cluster map {before.version}" in capsys.readouterr().out


def test_a_timer_learns_that_redis_is_away_and_not_the_password(tmp_path, capsys):
    assert publish("--data", tmp_path / "not even there", "--redis", nowhere()) == 1
    told = capsys.readouterr().err
    assert "expected an answer within 0.5 s" in told
    assert "s3cret" not in told
    assert "Traceback" not in told


def test_a_full_redis_is_told_and_nothing_is_left_in_it(redis, saved, capsys):
    redis.client.config_set("maxmemory", 1)
    assert publish("--from", saved[1], "--redis", redis.url) == 1
    assert "expected room for a map" in capsys.readouterr().err
    assert redis.client.keys("*") == []


@pytest.mark.parametrize("url", ["rdis://:s3cret@cache/0", "s3cret", "redis://:s3cret@cache:x"])
def test_an_address_that_is_none_is_refused_without_its_password(
    url, tmp_path, saved, config, capsys
):
    for command in (
        lambda: publish("--from", saved[1], "--redis", url),
        lambda: run(tmp_path / "absent", tmp_path / "bundles", config, "--redis", url),
    ):
        assert command() == 1
        told = capsys.readouterr().err
        assert "the address of Redis cannot be read" in told
        assert "s3cret" not in told


def test_a_run_is_published_whole_though_redis_is_away(world, tmp_path, config, capsys):
    bundles = tmp_path / "bundles"
    assert run(world, bundles, config, "--redis", nowhere()) == 0
    assert open_bundle(BundleRegistry(bundles).current()).clusters is not None
    told = capsys.readouterr()
    assert "expected an answer within 0.5 s" in told.out
    assert "s3cret" not in told.out + told.err
