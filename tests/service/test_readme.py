import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from index.metadata import Column
from tests.support.cluster_maps import local_maps
from tests.support.http_caller import until
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import handmade_map, publish_handmade

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = re.findall(r"^    (curl (?:.*\\\n)*.*)$", README, re.M)
IDS = [f"sku-{row:05}" for row in range(50)]
ROWS = np.arange(len(IDS), dtype=np.int32)
COLOURS = {"colour": Column(["crimson", "teal"], ROWS, ROWS % 2)}
TOKEN = "open sesame"


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_readme_curl_commands_succeed(tmp_path):
    old, new = (
        publish_handmade(tmp_path, ids=IDS, seed=seed, more_columns=COLOURS) for seed in (0, 1)
    )
    store = local_maps(tmp_path / "clusters")
    for shift in (0, 1):
        store.publish(handmade_map(ids=IDS, shift=shift))
    with start_service(tmp_path, ESANS_ADMIN_TOKEN=TOKEN) as (client, _):
        until(lambda: client.get("/clusters").status_code == 200, 30)
        bodies = {get_path(command): run_curl(command, client.base_url) for command in COMMANDS}
    retrieved, similar = bodies["/retrieve"], bodies["/items/sku-00042/similar"]
    assert retrieved["candidates"][0].keys() == {"item_id", "score"}
    assert [len(result["candidates"]) for result in bodies["/retrieve/batch"]["results"]] == [
        20,
        20,
    ]
    similar_rows = {int(item["item_id"][4:]) for item in similar["candidates"]}
    assert len(similar_rows) == 20
    assert similar_rows <= {*range(0, 50, 2)} - {42}  # crimson
    assert {*similar["candidates"][0]} == {"item_id", "score", "attributes"}
    assert [vector is None for vector in bodies["/embed"]["vectors"]] == [
        False,
        True,
    ]  # unknown user
    assert bodies["/admin/reload"]["bundle"] == new
    assert bodies["/admin/rollback"]["bundle"] == old
    negatives, pointer = bodies["/negatives"], bodies["/admin/clusters/current"]
    assert bodies["/clusters"]["version"] == handmade_map(ids=IDS, shift=1).version
    assert negatives["positives"] == ["sku-00042", "sku-00007"]
    assert pointer["version"] == handmade_map(ids=IDS, shift=0).version


def get_path(command):
    return re.search(r"localhost:8000([\w/-]*)", command)[1]


def run_curl(command, url):
    command = command.replace("http://", "").replace("localhost:8000", f"{url.host}:{url.port}")
    done = subprocess.run(
        ["sh", "-c", command], env={"ESANS_ADMIN_TOKEN": TOKEN, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)
