import pytest

from index.cluster_map_registry import ClusterPointer
from service.logging_config import JsonFormatter
from tests.service.test_problems import problem
from tests.support.cluster_maps import local_maps
from tests.support.http_caller import logged_lines, running
from tests.support.synthetic_bundle import handmade_map, publish_handmade

TOKEN = "correct horse é"
PATH = "/admin/clusters/current"
FIRST, SECOND, THIRD = (handmade_map(shift=turn) for turn in (0, 1, 2))


def put(caller, token=TOKEN, scheme="Bearer", **body):
    headers = {} if token is None else {"Authorization": f"{scheme} {token}".encode()}
    return caller.ask("PUT", PATH, json=body, headers=headers)


@pytest.fixture
def store(tmp_path):
    return local_maps(tmp_path / "clusters")


@pytest.fixture
def admin(tmp_path, store):
    """An app with two maps in its store, the second one current."""
    publish_handmade(tmp_path)
    store.publish(FIRST)
    store.publish(SECOND)
    with running(tmp_path, admin_token=TOKEN) as caller:
        caller.wait_for_clusters("following", SECOND.version)
        yield caller


def test_without_a_token_set_there_is_no_admin_call(caller):
    problem(put(caller, action="pin"), 404)


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], f"{TOKEN}x", "ü"])
def test_a_missing_or_wrong_token_is_refused(admin, store, token):
    before = store.pointer()
    answer = put(admin, token, action="rollback")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    told = problem(answer, 401)
    assert TOKEN not in answer.text
    assert "Authorization: Bearer" in told["detail"]
    assert store.pointer() == before


def test_the_right_token_in_another_scheme_is_refused(admin):
    problem(put(admin, scheme="Basic", action="rollback"), 401)
    problem(admin.ask("PUT", PATH, headers={"Authorization": TOKEN.encode()}), 401)


def test_the_token_comes_before_the_body(admin):
    problem(admin.ask("PUT", PATH, content=b"{"), 401)


def test_the_scheme_may_be_written_in_any_case(admin):
    assert put(admin, scheme="bearer", action="pin").status_code == 200


def test_a_roll_back_is_followed_and_a_second_one_returns(admin):
    told = put(admin, action="rollback").json()
    assert (told["version"], told["previous"]) == (FIRST.version, SECOND.version)
    admin.wait_for_clusters("following", FIRST.version)
    assert admin.get("/clusters").json()["sequence"] == told["sequence"]
    assert put(admin, action="rollback").json()["version"] == SECOND.version
    admin.wait_for_clusters("following", SECOND.version)
    told = put(admin, action="rollback", version=FIRST.version).json()
    assert told["version"] == FIRST.version


def test_a_pin_holds_against_a_publisher_until_it_is_taken_off(admin, store):
    told = put(admin, action="pin", version=FIRST.version).json()
    assert (told["version"], told["is_pinned"]) == (FIRST.version, True)
    admin.wait_for_clusters("following", FIRST.version)
    assert admin.get("/clusters").json()["is_pinned"] is True
    assert store.publish(THIRD).version == FIRST.version
    assert put(admin, action="unpin").json()["is_pinned"] is False
    store.publish(THIRD)
    admin.wait_for_clusters("following", THIRD.version)


def test_a_pin_without_a_version_stays_with_the_current_one(admin):
    told = put(admin, action="pin").json()
    assert (told["version"], told["is_pinned"]) == (SECOND.version, True)


@pytest.mark.parametrize("action", ["pin", "rollback"])
def test_a_version_that_is_not_there_is_a_404(admin, action):
    told = problem(put(admin, action=action, version="0" * 16), 404)
    assert "0" * 16 in told["detail"]


def test_where_nothing_is_published_there_is_nothing_to_pin(tmp_path):
    publish_handmade(tmp_path)
    with running(tmp_path, admin_token=TOKEN) as caller:
        for action in ("pin", "unpin", "rollback"):
            problem(put(caller, action=action), 404)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "action"),
        ({"action": "publish"}, "action"),
        ({"action": "pin", "version": "../../etc"}, "version"),
        ({"action": "pin", "version": "0" * 17}, "version"),
        ({"action": "unpin", "version": "0" * 16}, "version"),
        ({"action": "pin", "now": True}, "now"),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused_by_place(admin, body, place):
    assert problem(put(admin, **body), 422)["errors"][0]["location"] == place


def test_the_token_is_in_no_log(admin):
    with logged_lines(JsonFormatter()) as lines:
        put(admin, action="pin")
        put(admin, "wrong", action="pin")
    assert [line["status"] for line in lines if line["event"] == "request"] == [200, 401]
    assert not any(TOKEN in str(line) or "wrong" in str(line) for line in lines)


def test_a_pointer_answer_names_every_part_of_a_pointer(admin, store):
    told = put(admin, action="pin").json()
    found = ClusterPointer(
        **{"pinned" if key == "is_pinned" else key: value for key, value in told.items()}
    )
    assert found == store.pointer()
