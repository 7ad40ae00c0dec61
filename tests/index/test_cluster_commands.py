import shutil

import pytest

from index.__main__ import main
from index.bundle.registry import BundleRegistry
from index.cluster_map_registry import open_cluster_maps
from tests.support.cluster_maps import numbered, with_broken_pointer
from tests.support.synthetic_bundle import publish_handmade

A, B, C = (numbered(number) for number in range(3))


@pytest.fixture(autouse=True)
def no_store_of_ours(monkeypatch):
    """See no store of whoever runs the tests."""
    for name in ("ESANS_REDIS_URL", "ESANS_REDIS_URL_FILE", "ESANS_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["folder", "redis"])
def options(request, tmp_path):
    if request.param == "folder":
        return ["--bundles", str(tmp_path)]
    return ["--redis", request.getfixturevalue("redis").url]


@pytest.fixture
def three(options, tmp_path):
    url = options[1] if options[0] == "--redis" else None
    store = open_cluster_maps(url, tmp_path / "clusters")
    for one in (A, B, C):
        store.publish(one)
    return store


def say(capsys, *arguments):
    assert main(["clusters", *arguments]) == 0
    return capsys.readouterr().out


def test_list_tells_the_place_and_how_each_map_stands(options, three, capsys):
    place, *lines = say(capsys, "list", *options).splitlines()
    assert place == three.place
    assert [line[:18] for line in lines] == [
        f"  {A.version}",
        f"  {B.version}",
        f"* {C.version}",
    ]
    assert "200 items  6 clusters  20" in lines[0]
    assert [line.split("  ")[-1] for line in lines] == [
        "goes in 60 min",
        "the one before",
        "current",
    ]


def test_list_tells_the_maps_and_then_that_the_pointer_is_broken(options, three, capsys):
    with_broken_pointer(three)
    _, *lines = say(capsys, "list", *options).splitlines()
    assert [line.split()[0] for line in lines[:3]] == [A.version, B.version, C.version]
    assert lines[3] == f"{three.place}: 1 fault found"
    assert "`current` cannot be read as a pointer" in lines[4]
    for command in ("pin", "unpin", "rollback"):
        assert main(["clusters", command, *options]) == 1
        assert "naming a version" in capsys.readouterr().err
    assert "current, pinned" not in say(capsys, "rollback", B.version, *options)
    assert f"* {B.version}" in say(capsys, "list", *options)


def test_list_tells_how_to_publish_where_nothing_is(options, capsys):
    assert main(["clusters", "list", *options]) == 1
    assert "python -m trainer clusters --publish" in capsys.readouterr().err


def test_pin_holds_until_unpin(options, three, capsys):
    assert "is current and pinned" in say(capsys, "pin", A.version, *options)
    assert "current, pinned" in say(capsys, "list", *options)
    three.publish(B)
    assert three.pointer().version == A.version
    assert f"{A.version} is current, until" in say(capsys, "unpin", *options)
    assert three.publish(B).version == B.version


def test_rollback_goes_back_and_forth_and_to_a_named_one(options, three, capsys):
    told = say(capsys, "rollback", *options)
    assert told == f"current is now {B.version}; before it {C.version}\n"
    assert C.version in say(capsys, "rollback", *options)
    say(capsys, "pin", *options)
    told = say(capsys, "rollback", A.version, *options)
    assert told == f"current is now {A.version} (pinned); before it {C.version}\n"


def test_rollback_to_a_version_that_is_not_there_is_refused(options, three, capsys):
    assert main(["clusters", "rollback", "0" * 16, *options]) == 1
    assert "holds no cluster map '0000" in capsys.readouterr().err
    assert three.pointer().version == C.version


@pytest.mark.parametrize("command", ["pin", "rollback"])
def test_what_is_no_version_is_told_with_the_way_to_find_one(options, three, command, capsys):
    assert main(["clusters", command, "nope", *options]) == 1
    told = capsys.readouterr().err
    assert f"{three.place}: found 'nope', expected the version of a cluster map" in told
    assert "`python -m index clusters list` tells them" in told
    assert three.pointer().version == C.version


def test_prune_names_what_it_removed(options, three, capsys):
    assert say(capsys, "prune", "--keep", "0", *options) == f"removed {A.version}\n"
    assert say(capsys, "prune", "--keep", "0", *options) == "nothing to remove\n"


@pytest.mark.parametrize("count", ["x", "-1", "1.5", ""])
def test_a_count_that_is_none_is_told(count, capsys):
    with pytest.raises(SystemExit):
        main(["clusters", "prune", f"--keep={count}"])
    assert f"--keep: found '{count}', expected a whole number, 0 or more" in (
        capsys.readouterr().err
    )


def test_the_address_may_stand_in_the_environment(redis, monkeypatch, capsys):
    open_cluster_maps(redis.url, None, "shop").publish(A)
    monkeypatch.setenv("ESANS_REDIS_URL", redis.url)
    assert A.version in say(capsys, "list", "--namespace", "shop")


def test_the_environment_means_one_store_by_file_and_namespace_too(
    redis, tmp_path, monkeypatch, capsys
):
    open_cluster_maps(redis.url, None, "shop").publish(A)
    open_cluster_maps(redis.url, None).publish(B)
    (tmp_path / "url").write_text(redis.url)
    monkeypatch.setenv("ESANS_REDIS_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("ESANS_NAMESPACE", "shop")
    assert A.version in say(capsys, "list")
    assert B.version in say(capsys, "list", "--namespace", "esans")
    assert "namespace shop" in say(capsys, "list", "--redis", redis.url)


def test_without_an_address_all_ways_to_give_one_are_told(capsys):
    assert main(["clusters", "list"]) == 1
    assert "expected --redis URL, --bundles DIR or ESANS_REDIS_URL" in capsys.readouterr().err


def test_a_redis_that_does_not_answer_is_told(redis, tmp_path, capsys):
    assert main(["clusters", "list", "--redis", f"unix://{tmp_path}/nobody"]) == 1
    assert "start Redis, or correct its address" in capsys.readouterr().err


def test_maps_among_the_bundles_are_no_bundles_and_stay_when_those_are_pruned(tmp_path):
    version = publish_handmade(tmp_path)
    open_cluster_maps(None, tmp_path / "clusters").publish(A)
    assert BundleRegistry(tmp_path).versions() == [version]
    assert BundleRegistry(tmp_path).prune(0) == []
    assert open_cluster_maps(None, tmp_path / "clusters").read(A.version).version == A.version
    shutil.rmtree(tmp_path / "clusters")
    assert BundleRegistry(tmp_path).current().name == version
