"""Publishing of cluster maps to a real Redis server."""

import pytest

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map_io import save_cluster_map
from index.cluster_map_stores import open_cluster_maps
from tests.support.redis_server import free_port
from tests.support.trainer_maps import QUICK, SAMPLER, map_of
from tests.support.training_runs import run, write_config
from trainer.__main__ import main


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "run.toml", QUICK | {"training.sampler": SAMPLER})


@pytest.fixture
def saved(world_data, tmp_path):
    clusters = map_of(world_data, 1)
    save_cluster_map(clusters, tmp_path / "map")
    return clusters, tmp_path / "map"


def publish(*options):
    return main(["clusters", "--publish", *map(str, options)])


def store_of(redis, namespace="esans"):
    return open_cluster_maps(redis.url, None, namespace)


def unreachable_url(password="s3cret"):
    return f"redis://timer:{password}@127.0.0.1:{free_port()}/0"


def test_publish_reads_url_from_env_and_namespace_option(redis, saved, monkeypatch):
    clusters, folder = saved
    monkeypatch.setenv("ESANS_REDIS_URL", redis.url)
    assert publish("--from", folder, "--namespace", "shop") == 0
    assert store_of(redis, "shop").pointer().version == clusters.version
    assert store_of(redis).pointer() is None


def test_publish_reads_url_file_and_namespace_from_env(redis, saved, tmp_path, monkeypatch):
    clusters, folder = saved
    (tmp_path / "url").write_text(f"{redis.url}\n")
    monkeypatch.setenv("ESANS_REDIS_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("ESANS_NAMESPACE", "shop")
    assert publish("--from", folder) == 0
    assert store_of(redis, "shop").pointer().version == clusters.version
    assert store_of(redis).pointer() is None


def test_bundles_option_overrides_redis_environment(saved, tmp_path, monkeypatch):
    clusters, folder = saved
    monkeypatch.setenv("ESANS_REDIS_URL", unreachable_url())
    assert publish("--from", folder, "--bundles", tmp_path) == 0
    beside = open_cluster_maps(None, tmp_path / "clusters")
    assert beside.pointer().version == clusters.version


def test_run_publishes_map_that_next_run_follows(redis, world, tmp_path, config, capsys):
    assert run(world, tmp_path / "first", config, "--redis", redis.url) == 0
    bundle = open_bundle(BundleRegistry(tmp_path / "first").current())
    before = store_of(redis).pointer()
    assert before.version == bundle.clusters.version
    assert not (tmp_path / "first" / "clusters").exists()
    assert run(world, tmp_path / "second", config, "--redis", redis.url, "--follow") == 0
    (record,) = open_bundle(BundleRegistry(tmp_path / "second").current()).manifest.cluster_maps
    assert (record["version"], record["sequence"]) == (before.version, before.sequence)
    assert f"step 0: negatives come from cluster map {before.version}" in capsys.readouterr().out


def test_publish_error_hides_password_of_unreachable_redis(tmp_path, capsys):
    assert publish("--data", tmp_path / "not even there", "--redis", unreachable_url()) == 1
    output = capsys.readouterr().err
    assert "expected a response within 0.5 s" in output
    assert "s3cret" not in output
    assert "Traceback" not in output


def test_publish_to_full_redis_fails_and_leaves_no_keys(redis, saved, capsys):
    redis.client.config_set("maxmemory", 1)
    assert publish("--from", saved[1], "--redis", redis.url) == 1
    assert "expected free memory" in capsys.readouterr().err
    assert redis.client.keys("*") == []


@pytest.mark.parametrize("url", ["rdis://:s3cret@cache/0", "s3cret", "redis://:s3cret@cache:x"])
def test_invalid_redis_url_error_hides_password(url, tmp_path, saved, config, capsys):
    for command in (
        lambda: publish("--from", saved[1], "--redis", url),
        lambda: run(tmp_path / "absent", tmp_path / "bundles", config, "--redis", url),
    ):
        assert command() == 1
        output = capsys.readouterr().err
        assert "the Redis URL cannot be parsed" in output
        assert "s3cret" not in output


def test_run_with_unreachable_redis_publishes_bundle(world, tmp_path, config, capsys):
    bundles = tmp_path / "bundles"
    assert run(world, bundles, config, "--redis", unreachable_url()) == 0
    assert open_bundle(BundleRegistry(bundles).current()).clusters is not None
    output = capsys.readouterr()
    assert "expected a response within 0.5 s" in output.out
    assert "s3cret" not in output.out + output.err
