import gc
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from index.bundle.registry import BundleRegistry
from service.bundle_watcher import BundleWatcher
from service.metrics import Metrics
from tests.conftest import ROOT
from tests.support.admin import TOKEN, bearer, call_admin
from tests.support.http_caller import running, until
from tests.support.problems import assert_problem
from tests.support.published_bundles import day, flip_byte, publish_corrupt
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import handmade_map, publish_handmade

NEVER_S = 3_600  # a poll interval beyond the test: only requested polls happen


def post(caller, path, token=TOKEN, **options):
    return call_admin(caller, "POST", path, token, **options)


@pytest.fixture
def admin(tmp_path):
    """An app with one live bundle that polls only on request."""
    publish_handmade(tmp_path, now=day(0), prefix="old")
    with running(tmp_path, admin_token=TOKEN, poll_interval_s=NEVER_S) as caller:
        caller.wait_for("ready")
        yield caller


@pytest.mark.parametrize("path", ["reload", "rollback"])
def test_bundle_endpoints_without_token_are_rejected(admin, caller, path):
    assert_problem(post(caller, path, json={}), 403, "admin-disabled")
    for token in (None, "wrong"):
        assert_problem(post(admin, path, token, json={}), 401, "unauthorized")


def test_reload_returns_once_new_bundle_is_live(admin, tmp_path):
    version = publish_handmade(tmp_path, now=day(1), prefix="new")
    assert admin.retrieve_ids(k=1) == ["old-0"]
    reloaded = post(admin, "reload").json()
    assert reloaded == {"status": "ready", "bundle": version}
    assert admin.retrieve_ids(k=1) == ["new-0"]
    assert post(admin, "reload").json() == reloaded


def test_reload_of_corrupt_bundle_reports_reasons(admin, tmp_path):
    old, corrupt = publish_corrupt(tmp_path, day(1))
    problem = assert_problem(post(admin, "reload"), 409, "rejected-bundle")
    assert old in problem["detail"]
    assert corrupt in problem["reasons"][0]
    assert "item_vectors.npy: " in problem["reasons"][0]
    assert admin.retrieve(k=1).json()["bundle"] == old


def test_reload_retries_rejected_bundle(admin, tmp_path):
    _, corrupt = publish_corrupt(tmp_path, day(1))
    assert_problem(post(admin, "reload"), 409, "rejected-bundle")
    flip_byte(tmp_path / corrupt / "item_vectors.npy")  # restored, with the same size
    assert post(admin, "reload").json()["bundle"] == corrupt


def test_reload_without_published_bundle_returns_503(tmp_path):
    with running(tmp_path, admin_token=TOKEN) as caller:
        problem = assert_problem(post(caller, "reload"), 503, "no-bundle")
        assert str(tmp_path) in problem["detail"]
        assert_problem(post(caller, "rollback", json={}), 404, "unknown-version")


def test_rollback_twice_goes_further_back(admin, tmp_path):
    first = BundleRegistry(tmp_path).current().name
    second, third = (
        publish_handmade(tmp_path, now=day(count), prefix=prefix)
        for count, prefix in ((1, "new"), (2, "newest"))
    )
    post(admin, "reload")
    response = post(admin, "rollback", json={}).json()
    assert (response["bundle"], response["replaced"]) == (second, third)
    assert response["previous"] == first
    assert response["sequence"] == BundleRegistry(tmp_path).pointer().sequence
    assert admin.retrieve_ids(k=1) == ["new-0"]
    response = post(admin, "rollback", json={}).json()
    assert (response["bundle"], response["replaced"], response["previous"]) == (first, second, None)
    assert_problem(post(admin, "rollback", json={}), 404, "unknown-version")
    assert post(admin, "rollback", json={"version": third}).json()["bundle"] == third
    assert admin.retrieve_ids(k=1) == ["newest-0"]


def test_rollback_to_missing_version_returns_404(admin, tmp_path):
    before = BundleRegistry(tmp_path).pointer()
    assert_problem(post(admin, "rollback", json={}), 404, "unknown-version")
    missing = "20200101T000000Z-0000"
    response = post(admin, "rollback", json={"version": missing})
    assert missing in assert_problem(response, 404, "unknown-version")["detail"]
    assert BundleRegistry(tmp_path).pointer() == before


def test_rollback_to_corrupt_bundle_keeps_pointer(admin, tmp_path):
    first = BundleRegistry(tmp_path).current().name
    publish_handmade(tmp_path, now=day(1))
    flip_byte(tmp_path / first / "items.faiss")
    before = BundleRegistry(tmp_path).pointer()
    problem = assert_problem(post(admin, "rollback", json={}), 409, "rejected-bundle")
    (reason,) = problem["reasons"]
    assert reason.startswith("items.faiss: ")
    assert "sha256" in reason
    assert "not made current" in problem["detail"]
    assert BundleRegistry(tmp_path).pointer() == before


@pytest.mark.parametrize(
    ("body", "field"), [({"version": "../etc"}, "version"), ({"now": True}, "now")]
)
def test_rollback_invalid_body_names_field(admin, body, field):
    problem = assert_problem(post(admin, "rollback", json=body), 422)
    assert problem["errors"][0]["location"] == field


UNPRIVILEGED_ROLLBACK = """
import os, sys
from pathlib import Path
from index.errors import ReadOnlyBundlesError
from index.bundle.registry import BundleRegistry
from service.routes.admin import move_pointer

registry = BundleRegistry(Path(sys.argv[1]))
if os.geteuid() == 0:  # root may write anywhere
    os.setresuid(65534, 65534, 65534)
try:
    move_pointer(registry, sys.argv[2])
except ReadOnlyBundlesError as error:
    print(error)
"""


def test_rollback_in_read_only_folder_names_command():
    with tempfile.TemporaryDirectory(prefix="bundles-") as parent:  # tmp_path is private
        folder = Path(parent) / "bundles"
        version = publish_handmade(folder)
        for path, mode in ((folder / ".lock", 0o444), (folder, 0o555), (Path(parent), 0o755)):
            path.chmod(mode)
        command = [sys.executable, "-c", UNPRIVILEGED_ROLLBACK, str(folder), version]
        completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        folder.chmod(0o755)
    assert completed.stderr == ""
    assert f"run `python -m index rollback {folder} {version}`" in completed.stdout


def test_replicas_share_pointer_and_sighup_polls(tmp_path):
    first = publish_handmade(tmp_path, now=day(0))
    with (
        start_service(tmp_path, ESANS_ADMIN_TOKEN=TOKEN) as (admin, _),
        start_service(tmp_path) as (replica, _),
        start_service(tmp_path, ESANS_POLL_INTERVAL_S="3600") as (slow_replica, _),
    ):
        for client in (admin, replica, slow_replica):
            until(lambda client=client: client.get("/readyz").json().get("bundle") == first)
        second = publish_handmade(tmp_path, now=day(1))
        for client in (admin, replica):
            until(lambda client=client: client.get("/readyz").json()["bundle"] == second)
        response = admin.post("/admin/rollback", headers=bearer(), json={}).json()
        assert response["bundle"] == first == admin.get("/readyz").json()["bundle"]
        until(lambda: replica.get("/readyz").json()["bundle"] == first)
        third = publish_handmade(tmp_path, now=day(2))
        assert slow_replica.get("/readyz").json()["bundle"] == first
        slow_replica.process.send_signal(signal.SIGHUP)
        until(lambda: slow_replica.get("/readyz").json()["bundle"] == third)


def list_mapped_files(folder):
    """Return the files of a bundle that this process has mapped into memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split("/")[-1] for line in lines if f"{folder}/" in line}


@pytest.mark.parametrize("map_numbers", [(0, 1), (0, None), (None, None)])
def test_replaced_bundle_frees_its_memory(tmp_path, map_numbers):
    first, second = (None if n is None else handmade_map(shift=n) for n in map_numbers)
    old = publish_handmade(tmp_path, now=day(0), clusters=first)
    with running(tmp_path) as caller:
        caller.wait_for("ready", old)
        caller.wait_for_clusters("empty")
        caller.negatives(positives=["item-1"], easy=1, hard=1)
        assert "item_vectors.npy" in list_mapped_files(tmp_path / old)
        new = publish_handmade(tmp_path, now=day(1), clusters=second)
        caller.wait_for("ready", new)
        publish_corrupt(tmp_path, day(2))
        caller.wait_for("ready", new, reason="item_vectors.npy")
        until(lambda: gc.collect() >= 0 and not list_mapped_files(tmp_path / old))
        assert "item_vectors.npy" in list_mapped_files(tmp_path / new)


def test_request_keeps_the_bundle_it_started_with(tmp_path):
    old = publish_handmade(tmp_path, now=day(0))
    live_bundle = BundleWatcher(BundleRegistry(tmp_path), NEVER_S, Metrics())
    live_bundle.start()
    until(lambda: live_bundle.readiness()["status"] == "ready")
    held = live_bundle.get()
    publish_handmade(tmp_path, now=day(1))
    assert live_bundle.poll_now(60)
    assert held.bundle.version == old != live_bundle.get().bundle.version
    assert list_mapped_files(tmp_path / old)
    del held
    gc.collect()
    assert not list_mapped_files(tmp_path / old)
    live_bundle.stop()
