"""Attacks on a running service: it stays alive, right and small, and ends in time.

Each attack runs while `tests.attack.monitor` watches from another process. The figures are
printed as a table at the end: `make attack`.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.attack import floods, requests, stores
from tests.attack.target import Target, post, send_some
from tests.support.http_caller import until
from tests.support.service_process import ROOT, environment, start_service
from tests.support.synthetic_bundle import handmade_map, publish_handmade

pytestmark = pytest.mark.attack

MAX_LIVEZ_S, MAX_RSS_MB = 1.0, 300.0
NUM_ITEMS = 5_000
SETTINGS = {
    "ESANS_ADMIN_TOKEN": "attack",
    "ESANS_POLL_INTERVAL_S": "0.05",
    "ESANS_REQUEST_TIMEOUT_S": "4",
    "ESANS_SHUTDOWN_GRACE_S": "5",
}
ATTACKS = {
    f"{module.__name__.rpartition('.')[2]}: {name}": function
    for module, names in (
        (
            floods,
            """endless_trailer many_trailers endless_chunk_extension endless_blank_lines
            endless_head endless_body tiny_chunks pipelined_requests pipelined_unread
            pipelined_behind_slow invalid_large_json valid_large_json deep_json long_numbers
            slow_readers stalled_readers dripping_readers huge_negatives slow_heads
            half_bodies withheld_continue
            idle_connections connection_churn resets_in_requests half_closed_clients long_searches
            wide_filters long_query_strings wide_embeddings wrong_tokens many_paths signals
            exhausted_files random_bytes""",
        ),
        (requests, "malformed_requests smuggled_request invalid_bodies"),
        (
            stores,
            """special_pointer special_denylist hostile_pointers hostile_denylists
            vanishing_folder damaged_bundles""",
        ),
    )
    for name in names.split()
    for function in [getattr(module, name)]
}


@pytest.fixture(scope="module")
def figures():
    """Figures of each attack; printed at the end."""
    rows = {}
    yield rows
    lines = ["", f"{'attack':36} /livez max  RSS growth  answers  503  lost  wrong"]
    lines += [
        f"{name:36} {row['livez_s'] * 1_000:7.0f} ms {row['rss_mb']:8.0f} MB {row['answers']:8}"
        f" {row['rejected']:4} {row['lost']:5} {row['wrong']:6}"
        for name, row in rows.items()
    ]
    sys.stdout.write("\n".join([*lines, ""]))


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """A service with a bundle of 5,000 items, cluster map and attributes."""
    folder = tmp_path_factory.mktemp("attack") / "bundles"
    clusters = handmade_map(NUM_ITEMS)
    publish_handmade(folder, count=NUM_ITEMS, clusters=clusters)
    with start_service(folder, **SETTINGS) as (client, lines):
        until(lambda: client.get("/readyz").status_code == 200, limit_s=60)
        target = Target(client, folder)
        target.lines = lines
        target.url = str(client.base_url)
        yield target


@pytest.mark.parametrize("name", ATTACKS)
def test_service_withstands_attack(target, figures, name):
    num_lines = len(target.lines)
    command = [sys.executable, "-m", "tests.attack.monitor", target.url, str(target.process.pid)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as monitor:
        assert monitor.stdout.readline() == b"ready\n"
        try:
            ATTACKS[name](target)
        finally:
            output, _ = monitor.communicate(timeout=180)
    row = figures[name] = json.loads(output)
    assert target.process.poll() is None
    assert row["wrong"] == 0
    assert row["answers"] + row["rejected"] + row["lost"] > 0
    assert row["livez_s"] < MAX_LIVEZ_S
    assert row["rss_mb"] < MAX_RSS_MB
    assert not [line for line in target.lines[num_lines:] if line.get("status") == 500]
    assert not [line for line in target.lines[num_lines:] if "traceback" in line]


def test_memory_and_files_are_back_after_all_attacks(target):
    """Runs last: what the attacks held is released."""
    descriptors = Path(f"/proc/{target.process.pid}/fd")
    until(lambda: len(list(descriptors.iterdir())) < 100, limit_s=30)
    assert json.loads(target.get("/readyz"))["status"] == "ready"


def test_service_under_attack_ends_within_its_grace(tmp_path):
    publish_handmade(tmp_path, count=NUM_ITEMS)
    with start_service(tmp_path, **SETTINGS) as (client, _):
        until(lambda: client.get("/readyz").status_code == 200, limit_s=60)
        target = Target(client, tmp_path)
        with target.connections(60) as connections:
            for number, connection in enumerate(connections):
                large = post("/retrieve/batch", {"queries": [{"k": 1_000}] * 256})
                send_some(connection, large[:-1] if number % 2 else large)
            begin_s = time.monotonic()
            client.process.send_signal(signal.SIGTERM)
            client.process.wait(timeout=60)
        assert time.monotonic() - begin_s < int(SETTINGS["ESANS_SHUTDOWN_GRACE_S"]) + 6
