import shutil

import pytest

from index.__main__ import main
from index.bundle.registry import BundleRegistry
from index.cluster_map_stores import open_cluster_maps
from tests.support.cluster_maps import break_pointer, numbered_map
from tests.support.synthetic_bundle import publish_handmade

A, B, C = (numbered_map(number) for number in range(3))


@pytest.fixture(autouse=True)
def no_store_from_environment(monkeypatch):
    for name in ("ESANS_REDIS_URL", "ESANS_REDIS_URL_FILE", "ESANS_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["folder", "redis"])
def options(request, tmp_path):
    if request.param == "folder":
        return ["--bundles", str(tmp_path)]
    return ["--redis", request.getfixturevalue("redis").url]


@pytest.fixture
def registry(options, tmp_path):
    url = options[1] if options[0] == "--redis" else None
    store = open_cluster_maps(url, tmp_path / "clusters")
    for cluster_map in (A, B, C):
        store.publish(cluster_map)
    return store


def run(capsys, *arguments):
    assert main(["clusters", *arguments]) == 0
    return capsys.readouterr().out


def test_clusters_list_shows_location_and_map_status(options, registry, capsys):
    location, *lines = run(capsys, "list", *options).splitlines()
    assert location == registry.location
    assert [line[:18] for line in lines] == [f"  {A.version}", f"  {B.version}", f"* {C.version}"]
    assert "200 items  6 clusters  20" in lines[0]
    assert [line.split("  ")[-1] for line in lines] == ["expires in 60 min", "previous", "current"]


def test_clusters_list_with_broken_pointer_shows_maps_and_fault(options, registry, capsys):
    break_pointer(registry)
    _, *lines = run(capsys, "list", *options).splitlines()
    assert [line.split()[0] for line in lines[:3]] == [A.version, B.version, C.version]
    assert lines[3] == f"{registry.location}: 1 fault found"
    assert "`current` is not a valid pointer" in lines[4]
    for command in ("pin", "unpin", "rollback"):
        assert main(["clusters", command, *options]) == 1
        assert "clusters rollback VERSION" in capsys.readouterr().err
    assert "current, pinned" not in run(capsys, "rollback", B.version, *options)
    assert f"* {B.version}" in run(capsys, "list", *options)


def test_clusters_list_on_empty_store_says_how_to_publish(options, capsys):
    assert main(["clusters", "list", *options]) == 1
    assert "python -m trainer clusters --publish" in capsys.readouterr().err


def test_clusters_pin_holds_until_unpin(options, registry, capsys):
    assert "is current and pinned" in run(capsys, "pin", A.version, *options)
    assert "current, pinned" in run(capsys, "list", *options)
    registry.publish(B)
    assert registry.pointer().version == A.version
    assert f"{A.version} is current, until" in run(capsys, "unpin", *options)
    assert registry.publish(B).version == B.version


def test_clusters_rollback_toggles_or_selects_version(options, registry, capsys):
    output = run(capsys, "rollback", *options)
    assert output == f"current is now {B.version}; previous {C.version}\n"
    assert C.version in run(capsys, "rollback", *options)
    run(capsys, "pin", *options)
    output = run(capsys, "rollback", A.version, *options)
    assert output == f"current is now {A.version} (pinned); previous {C.version}\n"


def test_clusters_rollback_to_missing_version_fails(options, registry, capsys):
    assert main(["clusters", "rollback", "0" * 16, *options]) == 1
    assert "no cluster map '0000" in capsys.readouterr().err
    assert registry.pointer().version == C.version


@pytest.mark.parametrize("command", ["pin", "rollback"])
def test_clusters_command_with_invalid_version_fails(options, registry, command, capsys):
    assert main(["clusters", command, "nope", *options]) == 1
    message = capsys.readouterr().err
    assert f"{registry.location}: found 'nope', expected a cluster map version" in message
    assert "`python -m index clusters list` lists them" in message
    assert registry.pointer().version == C.version


def test_clusters_prune_lists_removed_versions(options, registry, capsys):
    assert run(capsys, "prune", "--keep", "0", *options) == f"removed {A.version}\n"
    assert run(capsys, "prune", "--keep", "0", *options) == "nothing to remove\n"


@pytest.mark.parametrize("count", ["x", "-1", "1.5", ""])
def test_clusters_prune_with_invalid_count_fails(count, capsys):
    with pytest.raises(SystemExit):
        main(["clusters", "prune", f"--keep={count}"])
    assert f"--keep: found '{count}', expected a whole number, 0 or more" in (
        capsys.readouterr().err
    )


def test_clusters_list_reads_redis_url_from_environment(redis, monkeypatch, capsys):
    open_cluster_maps(redis.url, None, "shop").publish(A)
    monkeypatch.setenv("ESANS_REDIS_URL", redis.url)
    assert A.version in run(capsys, "list", "--namespace", "shop")


def test_clusters_list_reads_url_file_and_namespace(redis, tmp_path, monkeypatch, capsys):
    open_cluster_maps(redis.url, None, "shop").publish(A)
    open_cluster_maps(redis.url, None).publish(B)
    (tmp_path / "url").write_text(redis.url)
    monkeypatch.setenv("ESANS_REDIS_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("ESANS_NAMESPACE", "shop")
    assert A.version in run(capsys, "list")
    assert B.version in run(capsys, "list", "--namespace", "esans")
    assert "namespace shop" in run(capsys, "list", "--redis", redis.url)


def test_clusters_list_without_store_lists_all_options(capsys):
    assert main(["clusters", "list"]) == 1
    assert "expected --redis URL, --bundles DIR or ESANS_REDIS_URL" in capsys.readouterr().err


def test_clusters_list_with_unreachable_redis_fails(redis, tmp_path, capsys):
    assert main(["clusters", "list", "--redis", f"unix://{tmp_path}/missing"]) == 1
    assert "start Redis, or correct the URL" in capsys.readouterr().err


def test_bundle_prune_keeps_cluster_maps(tmp_path):
    version = publish_handmade(tmp_path)
    open_cluster_maps(None, tmp_path / "clusters").publish(A)
    assert BundleRegistry(tmp_path).versions() == [version]
    assert BundleRegistry(tmp_path).prune(0) == []
    assert open_cluster_maps(None, tmp_path / "clusters").load(A.version).version == A.version
    shutil.rmtree(tmp_path / "clusters")
    assert BundleRegistry(tmp_path).current().name == version
