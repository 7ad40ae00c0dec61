from contextlib import contextmanager

import pytest

from index.cluster_map_registry import ClusterPointer
from service.logging_config import JsonFormatter
from tests.support.cluster_maps import local_maps
from tests.support.http_caller import logged_lines, running
from tests.support.problems import assert_problem
from tests.support.synthetic_bundle import handmade_map, publish_handmade

TOKEN = "correct horse é"
PATH = "/admin/clusters/current"
FIRST, SECOND, THIRD = (handmade_map(shift=shift) for shift in (0, 1, 2))


def put(caller, token=TOKEN, scheme="Bearer", **body):
    headers = {} if token is None else {"Authorization": f"{scheme} {token}".encode()}
    return caller.request("PUT", PATH, json=body, headers=headers)


@contextmanager
def serve_two_maps(folder):
    """Run an app with two maps in its store, the second current; yield a caller and the store."""
    publish_handmade(folder)
    store = local_maps(folder / "clusters")
    store.publish(FIRST)
    store.publish(SECOND)
    with running(folder, admin_token=TOKEN) as caller:
        caller.wait_for_clusters("following", SECOND.version)
        yield caller, store


@pytest.fixture
def admin_and_store(tmp_path):
    with serve_two_maps(tmp_path) as both:
        yield both


@pytest.fixture
def admin(admin_and_store):
    return admin_and_store[0]


@pytest.fixture
def store(admin_and_store):
    return admin_and_store[1]


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """Caller and store of an app that gets only requests that it rejects."""
    with serve_two_maps(tmp_path_factory.mktemp("bundles")) as both:
        yield both
        _, store = both
        assert store.pointer().version == SECOND.version
        assert not store.pointer().pinned


@pytest.fixture
def rejecting(unchanged):
    return unchanged[0]


def test_admin_without_configured_token_names_setting(caller):
    problem = assert_problem(put(caller, action="pin"), 403, "admin-disabled")
    assert "ESANS_ADMIN_TOKEN_FILE" in problem["detail"]
    unknown = assert_problem(caller.get("/admin/nowhere"), 403, "admin-disabled")
    assert problem["detail"].split(": ", 1)[1] == unknown["detail"].split(": ", 1)[1]


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], f"{TOKEN}x", "ü"])
def test_admin_with_wrong_token_returns_401(unchanged, token):
    rejecting, store = unchanged
    before = store.pointer()
    response = put(rejecting, token, action="rollback")
    assert response.headers["www-authenticate"].startswith("Bearer")
    problem = assert_problem(response, 401)
    assert TOKEN not in response.text
    assert "Authorization: Bearer" in problem["detail"]
    assert store.pointer() == before


def test_admin_with_basic_scheme_returns_401(rejecting):
    assert_problem(put(rejecting, scheme="Basic", action="rollback"), 401)
    assert_problem(rejecting.request("PUT", PATH, headers={"Authorization": TOKEN.encode()}), 401)


def test_admin_checks_token_before_body(rejecting):
    assert_problem(rejecting.request("PUT", PATH, content=b"{"), 401)


def test_bearer_scheme_is_case_insensitive(admin):
    assert put(admin, scheme="bearer", action="pin").status_code == 200


def test_rollback_moves_to_previous_map_and_back(admin):
    body = put(admin, action="rollback").json()
    assert (body["version"], body["previous"]) == (FIRST.version, SECOND.version)
    admin.wait_for_clusters("following", FIRST.version)
    assert admin.get("/clusters").json()["sequence"] == body["sequence"]
    assert put(admin, action="rollback").json()["version"] == SECOND.version
    admin.wait_for_clusters("following", SECOND.version)
    body = put(admin, action="rollback", version=FIRST.version).json()
    assert body["version"] == FIRST.version


def test_pin_holds_against_publishing_until_unpin(admin, store):
    body = put(admin, action="pin", version=FIRST.version).json()
    assert (body["version"], body["is_pinned"]) == (FIRST.version, True)
    admin.wait_for_clusters("following", FIRST.version)
    assert admin.get("/clusters").json()["is_pinned"] is True
    assert store.publish(THIRD).version == FIRST.version
    assert put(admin, action="unpin").json()["is_pinned"] is False
    store.publish(THIRD)
    admin.wait_for_clusters("following", THIRD.version)


def test_pin_without_version_pins_current_map(admin):
    body = put(admin, action="pin").json()
    assert (body["version"], body["is_pinned"]) == (SECOND.version, True)


@pytest.mark.parametrize("action", ["pin", "rollback"])
def test_move_to_unknown_version_returns_404(rejecting, action):
    problem = assert_problem(put(rejecting, action=action, version="0" * 16), 404)
    assert "0" * 16 in problem["detail"]


def test_pointer_without_published_map_returns_404(tmp_path):
    publish_handmade(tmp_path)
    with running(tmp_path, admin_token=TOKEN) as caller:
        for action in ("pin", "unpin", "rollback"):
            assert_problem(put(caller, action=action), 404)


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({}, "action"),
        ({"action": "publish"}, "action"),
        ({"action": "pin", "version": "../../etc"}, "version"),
        ({"action": "pin", "version": "0" * 17}, "version"),
        ({"action": "unpin", "version": "0" * 16}, "version"),
        ({"action": "pin", "now": True}, "now"),
    ],
)
def test_invalid_pointer_request_names_location(rejecting, body, location):
    assert assert_problem(put(rejecting, **body), 422)["errors"][0]["location"] == location


def test_token_is_not_logged(admin):
    with logged_lines(JsonFormatter()) as lines:
        put(admin, action="pin")
        put(admin, "wrong", action="pin")
    assert [line["status"] for line in lines if line["event"] == "request"] == [200, 401]
    assert not any(TOKEN in str(line) or "wrong" in str(line) for line in lines)


def test_pointer_response_has_all_pointer_fields(admin, store):
    body = put(admin, action="pin").json()
    pointer = ClusterPointer(
        **{"pinned" if key == "is_pinned" else key: value for key, value in body.items()}
    )
    assert pointer == store.pointer()
