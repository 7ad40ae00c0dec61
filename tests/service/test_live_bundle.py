import shutil
from datetime import timedelta
from pathlib import Path

import anyio
import httpx

from index.bundle.registry import BundleRegistry
from service.app import create_app
from service.bundle_watcher import LiveBundle
from service.logging_config import JsonFormatter
from service.metrics import Metrics
from service.server import Lifetime
from service.settings import Settings
from tests.support.http_caller import logged_lines, running, until
from tests.support.synthetic_bundle import NOW, publish_handmade

SWAP_COUNT = 5


def day(count):
    return NOW + timedelta(days=count)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


def publish_spoilt(bundles, now, name="item_vectors.npy"):
    """Publish a bundle with a flipped byte, unseen by those who follow until it is so."""
    before = BundleRegistry(bundles).pointer()
    with BundleRegistry(bundles).stage() as aside:
        version = publish_handmade(aside, now=now)
        flip_a_byte(aside / version / name)
        (aside / version).rename(bundles / version)
    BundleRegistry(bundles).make_current(version)
    return before.version if before else None, version


def test_the_port_is_open_before_there_is_a_bundle(empty, tmp_path):
    assert empty.get("/livez").json() == {"status": "alive"}
    until(lambda: "not asked" not in empty.get("/readyz").text)
    told = empty.get("/readyz")
    assert told.status_code == 503
    assert told.json() == {
        "status": "no bundle",
        "reasons": [f"nothing is published in {tmp_path}"],
        "denylist": {
            "status": "empty",
            "reasons": [f"no denylist is set in {tmp_path / 'denylist'}"],
        },
    }


def test_a_balancer_may_ask_for_the_head_alone(caller, empty):
    for ask, status in ((caller, 200), (empty, 503)):
        assert ask.ask("HEAD", "/livez").status_code == 200
        told = ask.ask("HEAD", "/readyz")
        assert (told.status_code, told.content) == (status, b"")


def test_that_nothing_is_published_is_logged_once_and_that_it_is_mended(bundles_folder, tmp_path):
    shutil.copytree(bundles_folder, bundles := tmp_path / "bundles")
    current = bundles / "current"
    with running(bundles) as caller, logged_lines(JsonFormatter()) as lines:
        caller.wait_for("ready")
        current.rename(tmp_path / "aside")
        caller.wait_for("ready", reason="nothing is published")
        (tmp_path / "aside").rename(current)
        caller.wait_for("ready")
    told = [line for line in lines if line["event"] in ("no bundle", "bundle is current again")]
    assert [line["level"] for line in told] == ["warning", "info"]
    assert told[0]["reasons"] == [f"nothing is published in {bundles}"]


def test_a_folder_that_does_not_exist_yet_is_waited_for(tmp_path):
    with running(tmp_path / "later") as caller:
        caller.wait_for("no bundle")
        version = publish_handmade(tmp_path / "later")
        caller.wait_for("ready", version)


def test_the_first_bundle_makes_it_ready(empty, tmp_path):
    version = publish_handmade(tmp_path)
    told = empty.wait_for("ready")
    assert (told["status"], told["bundle"]) == ("ready", version)
    assert empty.get("/readyz").status_code == 200
    empty.wait_for_clusters("empty")
    assert empty.get("/health").json() == empty.get("/readyz").json()
    assert empty.retrieve(k=1).json()["bundle"] == version


def test_a_new_current_bundle_is_followed_and_so_is_going_back(tmp_path):
    first = publish_handmade(tmp_path, now=day(0), prefix="old")
    with running(tmp_path) as caller:
        caller.wait_for("ready", first)
        assert caller.found(k=1) == ["old-0"]
        second = publish_handmade(tmp_path, now=day(1), prefix="new")
        caller.wait_for("ready", second)
        assert caller.found(k=1) == ["new-0"]
        BundleRegistry(tmp_path).roll_back()
        caller.wait_for("ready", first)
        assert caller.found(k=1) == ["old-0"]
        assert caller.metric('esans_bundle_reloads_total{result="live"}') == 3


def test_a_spoilt_bundle_is_refused_and_the_old_one_serves_on(tmp_path):
    publish_handmade(tmp_path)
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        old, spoilt = publish_spoilt(tmp_path, day(1))
        told = caller.wait_for("ready", old, reason="item_vectors.npy: its content is not")
        assert spoilt in told["reasons"][0]
        assert caller.retrieve(k=1).json()["bundle"] == old
        assert caller.metric('esans_bundle_reloads_total{result="rejected"}') == 1
        third = publish_handmade(tmp_path, now=day(2))
        assert "reasons" not in caller.wait_for("ready", third)


def test_going_back_from_a_refused_bundle_ends_the_complaint(tmp_path):
    publish_handmade(tmp_path)
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        old, _ = publish_spoilt(tmp_path, day(1))
        caller.wait_for("ready", reason="item_vectors.npy")
        BundleRegistry(tmp_path).roll_back()
        caller.wait_for("ready", old)
        assert caller.metric('esans_bundle_reloads_total{result="live"}') == 1


def test_where_the_only_bundle_is_spoilt_nothing_is_ready(empty, tmp_path):
    publish_spoilt(tmp_path, NOW)
    told = empty.wait_for("rejected", reason="item_vectors.npy")
    assert "bundle" not in told
    assert empty.get("/readyz").status_code == 503


def test_a_refused_bundle_is_not_opened_again_at_each_look(tmp_path):
    looks, metrics = [], Metrics()

    class CountingShelf(BundleRegistry):
        def pointer(self):
            looks.append(1)
            return super().pointer()

    publish_spoilt(tmp_path, NOW)
    live_bundle = LiveBundle(CountingShelf(tmp_path), 0.01, metrics)
    live_bundle.start()
    until(lambda: len(looks) >= 10)
    live_bundle.stop()
    assert b'esans_bundle_reloads_total{result="rejected"} 1.0' in metrics.render()


def test_a_file_that_shows_up_late_is_reason_to_try_again(empty, tmp_path):
    with BundleRegistry(tmp_path).stage() as aside:
        version = publish_handmade(aside)
        shutil.move(aside / version, tmp_path / version)
    hidden = shutil.move(tmp_path / version / "items.faiss", tmp_path / "hidden")
    BundleRegistry(tmp_path).make_current(version)
    empty.wait_for("rejected", reason="items.faiss: missing")
    shutil.move(hidden, tmp_path / version / "items.faiss")
    empty.wait_for("ready", version)


def test_a_file_system_that_fails_is_tried_again_at_each_look(tmp_path):
    version = publish_handmade(tmp_path)

    class FlakyShelf(BundleRegistry):
        looks = 0

        def path_of(self, version):
            self.looks += 1
            if self.looks < 4:
                raise OSError("stale file handle")
            return super().path_of(version)

    live_bundle = LiveBundle(FlakyShelf(tmp_path), 0.01, Metrics())
    live_bundle.start()
    until(lambda: live_bundle.readiness() == {"status": "ready", "bundle": version})
    live_bundle.stop()


def test_a_broken_pointer_does_not_end_the_service(tmp_path):
    version = publish_handmade(tmp_path)
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        (tmp_path / "current").write_text("{")
        caller.wait_for("ready", version, reason="cannot be read as a pointer")
        BundleRegistry(tmp_path).make_current(version)
        caller.wait_for("ready", version)


def test_when_the_follower_dies_it_is_not_ready_any_more_but_answers_on(tmp_path):
    publish_handmade(tmp_path)

    class DyingShelf(BundleRegistry):
        looks = 0

        def pointer(self):
            self.looks += 1
            if self.looks > 1:
                raise KeyboardInterrupt("no more")  # what no poll survives
            return super().pointer()

    live_bundle = LiveBundle(DyingShelf(tmp_path), 0.01, Metrics())
    live_bundle.start()
    until(lambda: live_bundle.readiness()["status"] == "stopped")
    assert "restart" in live_bundle.readiness()["reasons"][0]
    assert live_bundle.get().bundle.version == BundleRegistry(tmp_path).current().name
    live_bundle.stop()


def test_the_live_manifest_is_shown_and_need_not_be_sent_twice(caller):
    told = caller.get("/bundle")
    version = told.json()["version"]
    assert told.json()["manifest"]["items"] == 40
    assert told.headers["etag"] == f'"{version}"'
    again = caller.get("/bundle", headers={"If-None-Match": f'"other", "{version}"'})
    assert (again.status_code, again.content) == (304, b"")


def test_no_request_fails_or_mixes_bundles_while_they_are_swapped(tmp_path):
    versions = {publish_handmade(tmp_path, now=day(0), prefix="run0"): "run0"}
    answers = anyio.run(ask_during_swaps, tmp_path, versions, SWAP_COUNT)
    assert len(answers) >= 200
    assert len({told["bundle"] for told in answers}) >= SWAP_COUNT
    for told in answers:
        assert len(told["candidates"]) == 20
        prefixes = {one["item_id"].split("-")[0] for one in told["candidates"]}
        assert prefixes == {versions[told["bundle"]]}


async def ask_during_swaps(bundles: Path, versions, count):
    app = create_app(Settings(bundles=bundles, poll_interval_s=0.02), Lifetime())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://esans")
    answers, swapped = [], anyio.Event()

    async def wait_for(version):
        with anyio.fail_after(20):
            while (await client.get("/readyz")).json().get("bundle") != version:  # noqa: ASYNC110  # asks over HTTP
                await anyio.sleep(0.005)

    async def ask():
        while not swapped.is_set() or len(answers) < 200:
            response = await client.post("/retrieve", json={"user_id": "user-0", "k": 20})
            response.raise_for_status()
            answers.append(response.json())
            await anyio.sleep(0.002)

    async with app.router.lifespan_context(app), client:
        await wait_for(next(iter(versions)))
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(ask)
            for number in range(1, count + 1):
                version = await anyio.to_thread.run_sync(
                    lambda n=number: publish_handmade(bundles, now=day(n), prefix=f"run{n}")
                )
                versions[version] = f"run{number}"
                await wait_for(version)
            swapped.set()
    return answers


def test_a_bundle_answers_whatever_becomes_of_what_goes_with_it(tmp_path):
    def fail(_):
        raise MemoryError("no room for its map")

    version = publish_handmade(tmp_path)
    live = LiveBundle(BundleRegistry(tmp_path), 0.02, Metrics(), on_live=fail)
    live.start()
    try:
        until(lambda: live.readiness()["status"] == "ready")
        assert live.get().bundle.version == version
        later = publish_handmade(tmp_path, now=day(1))
        until(lambda: live.readiness().get("bundle") == later)
    finally:
        live.stop()
