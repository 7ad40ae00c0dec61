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
CALLS = re.findall(r"^    (curl (?:.*\\\n)*.*)$", README, re.M)
IDS = [f"sku-{row:05}" for row in range(50)]
ROWS = np.arange(len(IDS), dtype=np.int32)
COLOURS = {"colour": Column(["crimson", "teal"], ROWS, ROWS % 2)}
TOKEN = "open sesame"


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_the_calls_of_the_readme_are_answered(tmp_path):
    old, new = (
        publish_handmade(tmp_path, ids=IDS, seed=seed, more_columns=COLOURS) for seed in (0, 1)
    )
    store = local_maps(tmp_path / "clusters")
    for turn in (0, 1):
        store.publish(handmade_map(ids=IDS, shift=turn))
    with start_service(tmp_path, ESANS_ADMIN_TOKEN=TOKEN) as (client, _):
        until(lambda: client.get("/clusters").status_code == 200, 30)
        told = {path_of(call): told_by(call, client.base_url) for call in CALLS}
    found, similar = told["/retrieve"], told["/items/sku-00042/similar"]
    assert found["candidates"][0].keys() == {"item_id", "score"}
    assert [len(one["candidates"]) for one in told["/retrieve/batch"]["results"]] == [20, 20]
    found_rows = {int(one["item_id"][4:]) for one in similar["candidates"]}
    assert len(found_rows) == 20
    assert found_rows <= {*range(0, 50, 2)} - {42}  # the crimson ones
    assert {*similar["candidates"][0]} == {"item_id", "score", "attributes"}
    assert [one is None for one in told["/embed"]["vectors"]] == [False, True]  # no such user
    assert told["/admin/reload"]["bundle"] == new
    assert told["/admin/rollback"]["bundle"] == old
    negatives, pointer = told["/negatives"], told["/admin/clusters/current"]
    assert told["/clusters"]["version"] == handmade_map(ids=IDS, shift=1).version
    assert negatives["positives"] == ["sku-00042", "sku-00007"]
    assert pointer["version"] == handmade_map(ids=IDS, shift=0).version


def path_of(call):
    return re.search(r"localhost:8000([\w/-]*)", call)[1]


def told_by(call, url):
    call = call.replace("http://", "").replace("localhost:8000", f"{url.host}:{url.port}")
    done = subprocess.run(
        ["sh", "-c", call], env={"ESANS_ADMIN_TOKEN": TOKEN, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)
