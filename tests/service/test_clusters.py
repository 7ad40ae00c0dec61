"""Maps from a folder; what Redis adds to that is in test_redis."""

from datetime import timedelta

import numpy as np
import pytest
from pydantic import ConfigDict, TypeAdapter, with_config

from index.bundle.registry import BundleRegistry
from index.cluster_map import ClusterMap
from service.logging_config import JsonFormatter
from service.schemas.clusters import ClustersResponse
from tests.service.test_problems import problem
from tests.support.cluster_maps import local_maps
from tests.support.http_caller import logged_lines, running, until
from tests.support.synthetic_bundle import NOW, handmade_map, publish_handmade

CODES = {row: [row % 4, row // 4 % 3] for row in range(40)}


def codes_found(caller, **question):
    told = caller.retrieve(**question, include=["clusters"]).json()
    return {one["item_id"]: one["cluster"] for one in told["candidates"]}


@pytest.fixture(scope="module")
def own_map(tmp_path_factory):
    """An app whose bundle brought a map along; nothing is in the store."""
    bundles = tmp_path_factory.mktemp("own")
    publish_handmade(bundles, clusters=handmade_map())
    with running(bundles) as caller:
        caller.wait_for_clusters("empty", handmade_map().version)
        yield caller


def test_the_bundles_own_map_is_used_where_nothing_is_published(own_map):
    told = own_map.get("/clusters").json()
    assert (told["version"], told["source"]) == (handmade_map().version, "bundle")
    assert (told["items"], told["unknown_items"]) == (40, 0)
    assert (told["level_1_codes"], told["level_2_codes"]) == (4, 3)
    assert told["made"]["turn"] == 0
    assert told["age_seconds"] > 0
    assert (told["sequence"], told["is_pinned"]) == (None, False)
    assert told["follower"]["status"] == "empty"
    assert told["bundle"] == own_map.get("/bundle").json()["version"]


def test_the_card_is_what_the_schema_says(own_map):
    closed = with_config(ConfigDict(extra="forbid"))(ClustersResponse)
    TypeAdapter(closed).validate_json(own_map.get("/clusters").content, strict=True)


def test_candidates_tell_their_clusters_only_when_asked(own_map):
    told = own_map.retrieve(history=["item-0"], k=20, include=["clusters"]).json()
    assert told["clusters"] == handmade_map().version
    for one in told["candidates"]:
        assert one["cluster"] == CODES[int(one["item_id"][5:])]
    plain = own_map.retrieve(history=["item-0"], k=20).json()
    assert plain.keys() == {"bundle", "candidates"}
    assert {frozenset(one) for one in plain["candidates"]} == {frozenset(("item_id", "score"))}


def test_a_bundle_whose_items_stand_in_another_order_tells_the_same_clusters(tmp_path, monkeypatch):
    monkeypatch.setattr("index.ann.tuning.FLAT_LIMIT", 10)
    publish_handmade(tmp_path, clusters=handmade_map())
    with running(tmp_path) as caller:
        caller.wait_for_clusters("empty", handmade_map().version)
        assert codes_found(caller, history=["item-0"], k=39) == {
            f"item-{row}": codes for row, codes in CODES.items() if row
        }


def test_popular_items_tell_their_clusters_too(own_map):
    assert codes_found(own_map, user_id="nobody", k=2) == {"item-0": [0, 0], "item-1": [1, 0]}


def test_what_else_is_to_be_included_is_refused(own_map):
    told = problem(own_map.retrieve(include=["vectors"]), 422)
    assert told["errors"][0]["location"] == "include.0"


def test_without_any_map_clusters_are_null_and_the_calls_say_why(caller):
    caller.wait_for_clusters("empty", reason="nothing is published in")
    told = caller.retrieve(history=["item-0"], k=5, include=["clusters"]).json()
    assert {one["cluster"] for one in told["candidates"]} == {None}
    assert "clusters" not in told
    for answer in (caller.get("/clusters"), caller.negatives(positives=[], easy=1, hard=1)):
        assert "no cluster map is in use" in problem(answer, 404)["detail"]
    assert caller.metric('esans_cluster_map_swaps_total{result="live"}') == 0
    assert "esans_cluster_map_info" not in caller.get("/metrics").text
    assert "esans_redis" not in caller.get("/metrics").text


def test_before_a_bundle_is_live_the_calls_may_come_again(empty):
    for answer in (empty.get("/clusters"), empty.negatives(positives=[], easy=1, hard=1)):
        assert "no bundle is live yet" in problem(answer, 503)["detail"]
    assert "clusters" not in empty.get("/readyz").json()


def test_a_published_map_is_followed_and_seen_everywhere(tmp_path):
    publish_handmade(tmp_path)
    store = local_maps(tmp_path / "clusters")
    with running(tmp_path) as caller, logged_lines(JsonFormatter()) as lines:
        caller.wait_for_clusters("empty")
        for turn in (1, 2):
            found = handmade_map(shift=turn)
            pointer = store.publish(found)
            caller.wait_for_clusters("following", found.version)
            told = caller.get("/clusters").json()
            assert (told["version"], told["source"]) == (found.version, "folder")
            assert told["sequence"] == pointer.sequence
            for item, cluster in codes_found(caller, history=["item-0"], k=10).items():
                assert cluster[0] == (int(item[5:]) + turn) % 4
        info = f'esans_cluster_map_info{{source="folder",version="{found.version}"}}'
        assert caller.metric(info) == 1
        assert caller.metric('esans_cluster_map_swaps_total{result="live"}') == 2
        assert caller.metric('esans_cluster_map_swaps_total{result="rejected"}') == 0
        assert caller.metric("esans_cluster_map_items") == 40
        assert caller.metric("esans_cluster_map_age_seconds") > 0
        assert handmade_map(shift=1).version not in caller.get("/metrics").text
    told = [line for line in lines if line["event"] == "cluster map is live"]
    assert [line["version"] for line in told] == [handmade_map(shift=t).version for t in (1, 2)]


def test_a_map_of_other_items_is_refused_and_the_old_one_stays(tmp_path):
    publish_handmade(tmp_path)
    store = local_maps(tmp_path / "clusters")
    store.publish(handmade_map())
    with running(tmp_path) as caller, logged_lines(JsonFormatter(), "clusters") as lines:
        caller.wait_for_clusters("following", handmade_map().version)
        store.publish(handmade_map(prefix="foreign"))
        told = caller.wait_for_clusters("rejected", handmade_map().version)
        assert told["source"] == "folder"
        assert caller.get("/readyz").status_code == 200
        assert caller.metric('esans_cluster_map_swaps_total{result="rejected"}') == 1
        store.roll_back()
        caller.wait_for_clusters("following", handmade_map().version)
    assert any("rejected" in line["event"] for line in lines)


def test_items_that_the_map_does_not_know_have_no_cluster(tmp_path):
    publish_handmade(tmp_path)
    whole = handmade_map()
    rows = np.arange(39)  # item-39 came later
    local_maps(tmp_path / "clusters").publish(
        ClusterMap(whole.codes1[rows], whole.codes2[rows], whole.centroids, whole.id_hashes[rows])
    )
    with running(tmp_path) as caller:
        caller.wait_for_clusters("following")
        found = codes_found(caller, history=["item-1"], k=39)
        assert found["item-39"] is None
        assert found["item-38"] == CODES[38]
        told = caller.get("/clusters").json()
        assert (told["items"], told["unknown_items"], told["level_1_codes"]) == (39, 1, 4)


def test_when_another_bundle_becomes_live_the_map_is_joined_with_its_items(tmp_path):
    publish_handmade(tmp_path, count=40)
    found = handmade_map(count=41)
    local_maps(tmp_path / "clusters").publish(found)
    with running(tmp_path) as caller:
        caller.wait_for_clusters("following", found.version)
        second = publish_handmade(tmp_path, NOW + timedelta(days=1), count=41)
        caller.wait_for("ready", second)
        until(lambda: caller.get("/clusters").json()["bundle"] == second, 30)
        assert codes_found(caller, history=["item-0"], k=41)["item-40"] == [0, 1]
        BundleRegistry(tmp_path).roll_back()
        until(lambda: caller.get("/clusters").json()["bundle"] != second, 30)
        assert caller.get("/clusters").json()["version"] == found.version


def test_a_bundle_of_other_items_brings_its_own_map_back_into_use(tmp_path):
    publish_handmade(tmp_path)
    local_maps(tmp_path / "clusters").publish(handmade_map())
    with running(tmp_path) as caller:
        caller.wait_for_clusters("following", handmade_map().version)
        own = handmade_map(prefix="other", shift=1)
        second = publish_handmade(tmp_path, NOW + timedelta(days=1), prefix="other", clusters=own)
        caller.wait_for("ready", second)
        told = caller.wait_for_clusters("rejected", own.version)
        assert told["source"] == "bundle"
        assert codes_found(caller, history=["other-0"], k=1)


def test_a_bundle_whose_map_is_of_other_items_serves_without_it(tmp_path):
    with logged_lines(JsonFormatter()) as lines:
        publish_handmade(tmp_path, clusters=handmade_map(prefix="foreign"))
        with running(tmp_path) as caller:
            caller.wait_for("ready")
            caller.wait_for_clusters("empty")
            assert set(codes_found(caller, history=["item-0"], k=3).values()) == {None}
    assert "cluster map of other items passed over" in [line["event"] for line in lines]
