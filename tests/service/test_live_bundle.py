import resource
import shutil
from pathlib import Path

import anyio
import httpx

from index.bundle.registry import BundleRegistry
from index.storage.watcher import NOT_POLLED
from service.app import create_app
from service.bundle_watcher import BundleWatcher
from service.logging_config import JsonFormatter
from service.metrics import Metrics
from service.server import Lifetime
from service.settings import Settings
from tests.support.http_caller import logged_lines, running, until
from tests.support.published_bundles import day, publish_corrupt
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import NOW, publish_handmade

SWAP_COUNT = 5


def test_port_is_open_before_a_bundle_exists(empty, tmp_path):
    assert empty.get("/livez").json() == {"status": "alive"}
    until(lambda: NOT_POLLED not in empty.get("/readyz").text)
    response = empty.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {
        "status": "no bundle",
        "reasons": [f"nothing is published in {tmp_path}"],
        "denylist": {
            "status": "empty",
            "reasons": [f"no denylist is set in {tmp_path / 'denylist'}"],
        },
    }


def test_probes_accept_head_requests(caller, empty):
    for app, status in ((caller, 200), (empty, 503)):
        assert app.request("HEAD", "/livez").status_code == 200
        response = app.request("HEAD", "/readyz")
        assert (response.status_code, response.content) == (status, b"")


def test_missing_pointer_is_logged_once_and_recovers(bundles_folder, tmp_path):
    shutil.copytree(bundles_folder, bundles := tmp_path / "bundles")
    current = bundles / "current"
    with running(bundles) as caller, logged_lines(JsonFormatter()) as lines:
        caller.wait_for("ready")
        current.rename(tmp_path / "moved")
        caller.wait_for("ready", reason="nothing is published")
        (tmp_path / "moved").rename(current)
        caller.wait_for("ready")
    events = [line for line in lines if line["event"] in ("no bundle", "bundle is current again")]
    assert [line["level"] for line in events] == ["warning", "info"]
    assert events[0]["reasons"] == [f"nothing is published in {bundles}"]


def test_missing_bundles_folder_is_waited_for(tmp_path):
    with running(tmp_path / "later") as caller:
        caller.wait_for("no bundle")
        version = publish_handmade(tmp_path / "later")
        caller.wait_for("ready", version)


def test_first_bundle_makes_service_ready(empty, tmp_path):
    version = publish_handmade(tmp_path)
    readiness = empty.wait_for("ready")
    assert (readiness["status"], readiness["bundle"]) == ("ready", version)
    assert empty.get("/readyz").status_code == 200
    empty.wait_for_clusters("empty")
    assert empty.get("/health").json() == empty.get("/readyz").json()
    for path in ("/livez", "/readyz", "/health"):
        assert empty.request("HEAD", path).status_code == 200
    assert empty.retrieve(k=1).json()["bundle"] == version


def test_new_bundle_and_rollback_are_followed(tmp_path):
    first = publish_handmade(tmp_path, now=day(0), prefix="old")
    with running(tmp_path) as caller:
        caller.wait_for("ready", first)
        assert caller.retrieve_ids(k=1) == ["old-0"]
        second = publish_handmade(tmp_path, now=day(1), prefix="new")
        caller.wait_for("ready", second)
        assert caller.retrieve_ids(k=1) == ["new-0"]
        BundleRegistry(tmp_path).roll_back()
        caller.wait_for("ready", first)
        assert caller.retrieve_ids(k=1) == ["old-0"]
        assert caller.metric('esans_bundle_reloads_total{result="live"}') == 3


def test_corrupt_bundle_is_rejected_and_old_stays_live(tmp_path):
    publish_handmade(tmp_path)
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        old, corrupt = publish_corrupt(tmp_path, day(1))
        readiness = caller.wait_for("ready", old, reason="item_vectors.npy: ")
        assert corrupt in readiness["reasons"][0]
        assert caller.retrieve(k=1).json()["bundle"] == old
        assert caller.metric('esans_bundle_reloads_total{result="rejected"}') == 1
        third = publish_handmade(tmp_path, now=day(2))
        assert "reasons" not in caller.wait_for("ready", third)


def test_rollback_from_rejected_bundle_clears_reasons(tmp_path):
    publish_handmade(tmp_path)
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        old, _ = publish_corrupt(tmp_path, day(1))
        caller.wait_for("ready", reason="item_vectors.npy")
        BundleRegistry(tmp_path).roll_back()
        caller.wait_for("ready", old)
        assert caller.metric('esans_bundle_reloads_total{result="live"}') == 1


def test_only_bundle_corrupt_is_not_ready(empty, tmp_path):
    publish_corrupt(tmp_path, NOW)
    readiness = empty.wait_for("rejected", reason="item_vectors.npy")
    assert "bundle" not in readiness
    assert empty.get("/readyz").status_code == 503


def test_rejected_bundle_is_not_reopened_at_each_poll(tmp_path):
    polls, metrics = [], Metrics()

    class CountingRegistry(BundleRegistry):
        def pointer(self):
            polls.append(1)
            return super().pointer()

    publish_corrupt(tmp_path, NOW)
    live_bundle = BundleWatcher(CountingRegistry(tmp_path), 0.01, metrics)
    live_bundle.start()
    until(lambda: len(polls) >= 10)
    live_bundle.stop()
    assert b'esans_bundle_reloads_total{result="rejected"} 1.0' in metrics.render()


def test_rejected_bundle_is_retried_when_files_change(empty, tmp_path):
    with BundleRegistry(tmp_path).stage() as staged:
        version = publish_handmade(staged)
        shutil.move(staged / version, tmp_path / version)
    hidden = shutil.move(tmp_path / version / "items.faiss", tmp_path / "hidden")
    BundleRegistry(tmp_path).make_current(version)
    empty.wait_for("rejected", reason="items.faiss")
    shutil.move(hidden, tmp_path / version / "items.faiss")
    empty.wait_for("ready", version)


def test_os_error_is_retried_at_each_poll(tmp_path):
    version = publish_handmade(tmp_path)

    class FlakyRegistry(BundleRegistry):
        opens = 0

        def path_of(self, version):
            self.opens += 1
            if self.opens < 4:
                raise OSError("stale file handle")
            return super().path_of(version)

    live_bundle = BundleWatcher(FlakyRegistry(tmp_path), 0.01, Metrics())
    live_bundle.start()
    until(lambda: live_bundle.readiness() == {"status": "ready", "bundle": version})
    live_bundle.stop()


def test_broken_pointer_keeps_live_bundle(tmp_path):
    version = publish_handmade(tmp_path)
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        (tmp_path / "current").write_text("{")
        caller.wait_for("ready", version, reason="current")
        BundleRegistry(tmp_path).make_current(version)
        caller.wait_for("ready", version)


def test_watcher_survives_any_exception(tmp_path):
    publish_handmade(tmp_path, now=day(0))
    errors = [KeyboardInterrupt("planted"), SystemExit(1), MemoryError()]

    class FailingRegistry(BundleRegistry):
        def pointer(self):
            if errors:
                raise errors.pop()
            return super().pointer()

    live_bundle = BundleWatcher(FailingRegistry(tmp_path), 0.01, Metrics())
    live_bundle.start()
    until(lambda: live_bundle.readiness()["status"] == "ready")
    version = publish_handmade(tmp_path, now=day(1))
    until(lambda: live_bundle.readiness() == {"status": "ready", "bundle": version})
    live_bundle.stop()


def test_bundle_endpoint_returns_manifest_and_304(caller):
    response = caller.get("/bundle")
    version = response.json()["version"]
    assert response.json()["manifest"]["items"] == 40
    assert response.headers["etag"] == f'"{version}"'
    unchanged = caller.get("/bundle", headers={"If-None-Match": f'"other", "{version}"'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


def test_swaps_fail_no_request_and_mix_no_bundles(tmp_path):
    versions = {publish_handmade(tmp_path, now=day(0), prefix="run0"): "run0"}
    results = anyio.run(retrieve_during_swaps, tmp_path, versions, SWAP_COUNT)
    assert len(results) >= 200
    assert len({result["bundle"] for result in results}) >= SWAP_COUNT
    for result in results:
        assert len(result["candidates"]) == 20
        prefixes = {candidate["item_id"].split("-")[0] for candidate in result["candidates"]}
        assert prefixes == {versions[result["bundle"]]}


async def retrieve_during_swaps(bundles: Path, versions, count):
    settings = Settings(bundles=bundles, poll_interval_s=0.02, queue_timeout_ms=60_000)
    app = create_app(settings, Lifetime())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://esans")
    results, swapped = [], anyio.Event()

    async def wait_for(version):
        with anyio.fail_after(20):
            while (await client.get("/readyz")).json().get("bundle") != version:  # noqa: ASYNC110  # polls over HTTP
                await anyio.sleep(0.005)

    async def retrieve():
        while not swapped.is_set() or len(results) < 200:
            response = await client.post("/retrieve", json={"user_id": "user-0", "k": 20})
            assert response.status_code == 200, response.text
            results.append(response.json())
            await anyio.sleep(0.002)

    async with app.router.lifespan_context(app), client:
        await wait_for(next(iter(versions)))
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(retrieve)
            for number in range(1, count + 1):
                version = await anyio.to_thread.run_sync(
                    lambda n=number: publish_handmade(bundles, now=day(n), prefix=f"run{n}")
                )
                versions[version] = f"run{number}"
                await wait_for(version)
            swapped.set()
    return results


def test_failing_on_live_callback_keeps_bundle_live(tmp_path):
    def fail(_):
        raise MemoryError("no room for its map")

    version = publish_handmade(tmp_path)
    live = BundleWatcher(BundleRegistry(tmp_path), 0.02, Metrics(), on_live=fail)
    live.start()
    try:
        until(lambda: live.readiness()["status"] == "ready")
        assert live.get().bundle.version == version
        later = publish_handmade(tmp_path, now=day(1))
        until(lambda: live.readiness().get("bundle") == later)
    finally:
        live.stop()


def test_failed_on_live_callback_is_repeated(tmp_path, caplog):
    calls = []

    def fail_twice(bundle):
        calls.append(bundle.version)
        if len(calls) < 3:
            raise MemoryError("no room for its map")

    version = publish_handmade(tmp_path)
    live = BundleWatcher(BundleRegistry(tmp_path), 0.02, Metrics(), on_live=fail_twice)
    live.start()
    try:
        until(lambda: len(calls) == 3)
        assert live.poll_now(5)
        assert calls == [version] * 3  # not again after it succeeded
        assert live.readiness() == {"status": "ready", "bundle": version}
    finally:
        live.stop()
    assert caplog.text.count("callback after the bundle swap failed") == 1


def test_replica_without_file_descriptors_recovers(tmp_path):
    with start_service(tmp_path) as (client, lines):
        process = client.process.pid
        before = resource.prlimit(process, resource.RLIMIT_NOFILE)
        until(lambda: client.get("/readyz").json()["status"] == "no bundle")
        in_use = len([*Path(f"/proc/{process}/fd").iterdir()])
        version = publish_handmade(tmp_path / "elsewhere")
        resource.prlimit(process, resource.RLIMIT_NOFILE, (in_use + 3, before[1]))
        shutil.move(tmp_path / "elsewhere" / version, tmp_path / version)
        BundleRegistry(tmp_path).make_current(version)
        until(lambda: "bundle cannot be opened" in [line["event"] for line in lines])
        resource.prlimit(process, resource.RLIMIT_NOFILE, before)
        until(lambda: client.get("/readyz").json().get("bundle") == version)
