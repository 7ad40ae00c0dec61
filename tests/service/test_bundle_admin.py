import gc
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from index.bundle.registry import BundleRegistry
from service.bundle_watcher import LiveBundle
from service.metrics import Metrics
from tests.conftest import ROOT
from tests.service.test_live_bundle import day, flip_a_byte, publish_spoilt
from tests.service.test_problems import problem
from tests.support.http_caller import running, until
from tests.support.service_process import served
from tests.support.synthetic_bundle import handmade_map, publish_handmade

TOKEN = "a token"
NEVER_S = 3_600  # between two looks: only what is asked for happens


def post(caller, path, token=TOKEN, **options):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return caller.ask("POST", f"/admin/{path}", headers=headers, **options)


@pytest.fixture
def admin(tmp_path):
    """An app whose one bundle is live, and that looks only when it is told to."""
    publish_handmade(tmp_path, now=day(0), prefix="old")
    with running(tmp_path, admin_token=TOKEN, poll_interval_s=NEVER_S) as caller:
        caller.wait_for("ready")
        yield caller


@pytest.mark.parametrize("path", ["reload", "rollback"])
def test_these_calls_want_the_token(admin, caller, path):
    problem(post(caller, path, json={}), 404)
    for token in (None, "wrong"):
        problem(post(admin, path, token, json={}), 401)


def test_a_reload_answers_once_the_new_bundle_is_live(admin, tmp_path):
    version = publish_handmade(tmp_path, now=day(1), prefix="new")
    assert admin.found(k=1) == ["old-0"]
    told = post(admin, "reload").json()
    assert told == {"status": "ready", "bundle": version}
    assert admin.found(k=1) == ["new-0"]
    assert post(admin, "reload").json() == told


def test_a_reload_of_a_spoilt_bundle_tells_the_reasons_and_who_serves_on(admin, tmp_path):
    old, spoilt = publish_spoilt(tmp_path, day(1))
    told = problem(post(admin, "reload"), 409)
    assert f"{old} serves on" in told["detail"]
    assert spoilt in told["reasons"][0]
    assert "item_vectors.npy: its content is not what was published" in told["reasons"][0]
    assert admin.retrieve(k=1).json()["bundle"] == old


def test_a_reload_tries_again_what_was_refused(admin, tmp_path):
    _, spoilt = publish_spoilt(tmp_path, day(1))
    problem(post(admin, "reload"), 409)
    flip_a_byte(tmp_path / spoilt / "item_vectors.npy")  # whole again, of the same size
    assert post(admin, "reload").json()["bundle"] == spoilt


def test_a_reload_where_nothing_is_published_says_so(tmp_path):
    with running(tmp_path, admin_token=TOKEN) as caller:
        assert "nothing is published" in problem(post(caller, "reload"), 503)["detail"]
        problem(post(caller, "rollback", json={}), 404)


def test_a_rollback_is_live_when_it_is_answered_and_a_second_one_returns(admin, tmp_path):
    first = BundleRegistry(tmp_path).current().name
    second = publish_handmade(tmp_path, now=day(1), prefix="new")
    post(admin, "reload")
    told = post(admin, "rollback", json={}).json()
    assert (told["bundle"], told["previous"]) == (first, second)
    assert told["sequence"] == BundleRegistry(tmp_path).pointer().sequence
    assert admin.found(k=1) == ["old-0"]
    assert post(admin, "rollback", json={}).json()["bundle"] == second
    assert admin.found(k=1) == ["new-0"]
    assert post(admin, "rollback", json={"version": first}).json()["bundle"] == first


def test_a_rollback_to_what_is_not_there_is_a_404(admin, tmp_path):
    before = BundleRegistry(tmp_path).pointer()
    assert "before the current one" in problem(post(admin, "rollback", json={}), 404)["detail"]
    wanted = {"version": "20200101T000000Z-0000"}
    assert "holds no bundle" in problem(post(admin, "rollback", json=wanted), 404)["detail"]
    assert BundleRegistry(tmp_path).pointer() == before


def test_a_rollback_to_a_spoilt_bundle_leaves_the_pointer_alone(admin, tmp_path):
    first = BundleRegistry(tmp_path).current().name
    publish_handmade(tmp_path, now=day(1))
    flip_a_byte(tmp_path / first / "items.faiss")
    before = BundleRegistry(tmp_path).pointer()
    told = problem(post(admin, "rollback", json={}), 409)
    assert told["reasons"] == [
        "items.faiss: its content is not what was published (sha256 differs)"
    ]
    assert "was not made current" in told["detail"]
    assert BundleRegistry(tmp_path).pointer() == before


@pytest.mark.parametrize(
    ("body", "place"), [({"version": "../etc"}, "version"), ({"now": True}, "now")]
)
def test_a_rollback_that_breaks_a_rule_is_refused_by_place(admin, body, place):
    assert problem(post(admin, "rollback", json=body), 422)["errors"][0]["location"] == place


BOUND = """
import os, sys
from pathlib import Path
from index.errors import ReadOnlyBundlesError
from index.bundle.registry import BundleRegistry
from service.routes.admin import move_pointer

registry = BundleRegistry(Path(sys.argv[1]))
if os.geteuid() == 0:  # who may write anywhere
    os.setresuid(65534, 65534, 65534)
try:
    move_pointer(registry, sys.argv[2])
except ReadOnlyBundlesError as error:
    print(error)
"""


def test_who_may_not_write_the_bundles_is_told_the_command_to_run_elsewhere():
    with tempfile.TemporaryDirectory(prefix="bundles-") as above:  # pytest's own are private
        folder = Path(above) / "bundles"
        version = publish_handmade(folder)
        for path, mode in ((folder / ".lock", 0o444), (folder, 0o555), (Path(above), 0o755)):
            path.chmod(mode)
        command = [sys.executable, "-c", BOUND, str(folder), version]
        asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        folder.chmod(0o755)
    assert asked.stderr == ""
    assert f"run `python -m index rollback {folder} {version}`" in asked.stdout


def test_two_services_follow_one_pointer_and_a_signal_makes_one_look_at_once(tmp_path):
    first = publish_handmade(tmp_path, now=day(0))
    with (
        served(tmp_path, ESANS_ADMIN_TOKEN=TOKEN) as (one, _),
        served(tmp_path) as (other, _),
        served(tmp_path, ESANS_POLL_INTERVAL_S="3600") as (deaf, _),
    ):
        for client in (one, other, deaf):
            until(lambda client=client: client.get("/readyz").json().get("bundle") == first)
        second = publish_handmade(tmp_path, now=day(1))
        for client in (one, other):
            until(lambda client=client: client.get("/readyz").json()["bundle"] == second)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        told = one.post("/admin/rollback", headers=headers, json={}).json()
        assert told["bundle"] == first == one.get("/readyz").json()["bundle"]
        until(lambda: other.get("/readyz").json()["bundle"] == first)
        third = publish_handmade(tmp_path, now=day(2))
        assert deaf.get("/readyz").json()["bundle"] == first
        deaf.process.send_signal(signal.SIGHUP)
        until(lambda: deaf.get("/readyz").json()["bundle"] == third)


def mapped(folder):
    """The files of a bundle's folder that this process still has in its memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split("/")[-1] for line in lines if f"{folder}/" in line}


@pytest.mark.parametrize("maps", [(0, 1), (0, None), (None, None)])
def test_a_bundle_that_was_replaced_gives_its_memory_back(tmp_path, maps):
    first, second = (turn if turn is None else handmade_map(shift=turn) for turn in maps)
    old = publish_handmade(tmp_path, now=day(0), clusters=first)
    with running(tmp_path) as caller:
        caller.wait_for("ready", old)
        caller.wait_for_clusters("empty")
        caller.negatives(positives=["item-1"], easy=1, hard=1)
        assert "item_vectors.npy" in mapped(tmp_path / old)
        new = publish_handmade(tmp_path, now=day(1), clusters=second)
        caller.wait_for("ready", new)
        publish_spoilt(tmp_path, day(2))
        caller.wait_for("ready", new, reason="item_vectors.npy")
        until(lambda: gc.collect() >= 0 and not mapped(tmp_path / old))
        assert "item_vectors.npy" in mapped(tmp_path / new)


def test_a_request_keeps_the_bundle_that_it_began_with(tmp_path):
    old = publish_handmade(tmp_path, now=day(0))
    live_bundle = LiveBundle(BundleRegistry(tmp_path), NEVER_S, Metrics())
    live_bundle.start()
    until(lambda: live_bundle.readiness()["status"] == "ready")
    held = live_bundle.get()
    publish_handmade(tmp_path, now=day(1))
    assert live_bundle.poll_now(60)
    assert held.bundle.version == old != live_bundle.get().bundle.version
    assert mapped(tmp_path / old)
    del held
    gc.collect()
    assert not mapped(tmp_path / old)
    live_bundle.stop()
