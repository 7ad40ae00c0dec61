"""`make demo-swap`: both maps of a swap during training are in the manifest."""

import os
import subprocess
import sys

import pytest

from examples.catalogue import ShopSize, make_catalogue
from index.bundle.manifest import read_manifest
from index.bundle.registry import BundleRegistry
from tests.conftest import ROOT

pytestmark = pytest.mark.e2e


@pytest.mark.slow
def test_demo_swap_shows_both_maps_of_the_manifest(tmp_path):
    make_catalogue(
        tmp_path / ".demo" / "shop", ShopSize(items=600, users=3_000, interactions=45_000), seed=3
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ESANS_REDIS_URL": ""}
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo_swap"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bundle = BundleRegistry(tmp_path / ".demo" / "swap-bundles").current()
    first, second = read_manifest(bundle).cluster_maps
    assert (first["from_step"], second["from_step"] > 0) == (0, True)
    table = done.stdout.partition("cluster_maps in")[2]
    assert first["version"] in table
    assert second["version"] in table
