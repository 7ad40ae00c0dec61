import re

import pytest

from service.errors import TABLE
from service.metrics import REJECTIONS
from tests.support.cluster_maps import local_maps, numbered_map
from tests.support.http_caller import running, until
from tests.support.synthetic_bundle import publish_handmade

REQUESTS = "http_server_request_duration_seconds"


def test_fallbacks_are_counted_by_reason(bundles_folder):
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        assert caller.metric('esans_fallback_total{reason="unknown_user"}') == 0
        caller.retrieve(user_id="unknown")
        caller.retrieve(user_id="unknown")
        caller.retrieve(history=["lost"])
        caller.retrieve(history=["item-0"])
        assert caller.metric('esans_fallback_total{reason="unknown_user"}') == 2
        assert caller.metric('esans_fallback_total{reason="no_known_items"}') == 1
        assert caller.metric('esans_fallback_total{reason="empty_history"}') == 0


def test_short_results_and_candidates_are_counted(bundles_folder):
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        caller.retrieve(history=["item-0"], k=10)
        caller.retrieve(history=["item-0"], k=40)
        assert caller.metric('esans_short_results_total{reason="eligible"}') == 1
        assert caller.metric('esans_short_results_total{reason="filter"}') == 0
        assert caller.metric("esans_candidates_returned_sum") == 49
        for stage in ("queue", "encode", "search", "write", "total"):
            assert caller.metric(f'esans_stage_duration_seconds_count{{stage="{stage}"}}') == 2


def test_bundle_metrics_show_only_the_live_bundle(tmp_path):
    first = publish_handmade(tmp_path, prefix="a")
    with running(tmp_path) as caller:
        caller.wait_for("ready", first)
        second = publish_handmade(tmp_path, prefix="b", count=150)
        caller.wait_for("ready", second)
        text = caller.get("/metrics").text
        assert f'esans_bundle_info{{index="Flat",version="{second}"}} 1.0' in text
        assert first not in text
        assert caller.metric("esans_index_items") == 150
        assert caller.metric("esans_index_bytes") > 150 * 8
        assert caller.metric('esans_index_recall_at_k{k="100"}') == 1.0
        assert caller.metric("esans_bundle_load_seconds") > 0
        assert caller.metric("esans_bundle_age_seconds") > 0


def test_labels_hold_no_ids_or_unmatched_paths(caller):
    caller.retrieve(user_id="secret-user", history=["secret-item"])
    caller.get("/secret/path")
    caller.request("SECRET", "/livez")
    text = caller.get("/metrics").text
    assert "secret" not in text.lower()
    assert f'{REQUESTS}_count{{method="GET",route="unmatched",status="404"}}' in text


@pytest.mark.parametrize("path", ["/docs-static/swagger-ui.css", "/docs-static/user-17"])
def test_static_paths_share_a_route_label(caller, path):
    caller.get(path)
    text = caller.get("/metrics").text
    assert 'route="/docs-static"' in text
    assert path not in text
    assert f'{REQUESTS}_count{{method="_OTHER",route="/livez",status="405"}}' in text


def test_requests_are_timed_by_route_template(caller):
    caller.retrieve(k=1)
    labels = '{method="POST",route="/retrieve",status="200"}'
    assert caller.metric(f"{REQUESTS}_count{labels}") >= 1
    buckets = re.findall(
        rf'{REQUESTS}_bucket{{le="([^"]+)",method="POST"', caller.get("/metrics").text
    )
    assert {"0.001", "0.0025", "0.075", "10.0", "+Inf"} <= set(buckets)


def test_process_metrics_are_exported(caller):
    assert caller.metric("process_resident_memory_bytes") > 0
    assert "python_info{" in caller.get("/metrics").text


def test_rejected_requests_are_counted_by_reason(bundles_folder):
    with running(bundles_folder, body_limit_bytes=1024) as caller:
        caller.wait_for("ready")
        assert caller.metric('esans_rejected_total{reason="body-too-large"}') == 0
        caller.request("POST", "/retrieve", content=b" " * 1025)
        caller.disconnect_mid_body("/retrieve")
        caller.retrieve(k=0)  # invalid, which is not a rejection
        assert caller.metric('esans_rejected_total{reason="body-too-large"}') == 1
        assert caller.metric('esans_rejected_total{reason="client-gone"}') == 1
        assert caller.metric('esans_rejected_total{reason="queue-full"}') == 0


def test_rejection_reasons_are_problem_codes():
    codes = {error.code for error in TABLE}
    assert set(REJECTIONS) - {"client-gone"} <= codes


def test_inflight_counts_the_metrics_request_itself(caller):
    assert caller.metric("esans_inflight_requests") == 1
    assert caller.metric("esans_queued_queries") == 0


def test_ready_metric_follows_readiness(bundles_folder, tmp_path):
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        assert caller.metric("esans_ready") == 1
    with running(tmp_path) as caller:
        assert caller.metric("esans_ready") == 0


def test_flags_show_what_cannot_be_followed(tmp_path):
    publish_handmade(tmp_path)
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        caller.wait_for_clusters("empty")
        flags = {
            "esans_bundle_following": 1,
            "esans_cluster_map_rejected": 0,
            "esans_denylist_rejected": 0,
            "esans_denylist_up": 1,
            "esans_ready": 1,
        }
        assert {name: caller.metric(name) for name in flags} == flags
        (tmp_path / "current").write_bytes(b"damaged")
        (tmp_path / "denylist").write_bytes(b"damaged")
        local_maps(tmp_path / "clusters").publish(numbered_map(0))
        until(lambda: caller.metric("esans_bundle_following") == 0)
        until(lambda: caller.metric("esans_denylist_rejected") == 1)
        until(lambda: caller.metric("esans_cluster_map_rejected") == 1)
        assert caller.metric("esans_denylist_up") == 1  # the store answers
        assert caller.metric("esans_ready") == 1  # with the bundle before
