"""Image builds and runs replayed in clean environments, without a container engine."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.dockerfile import ROOT, environment, exec_form, values

pytestmark = pytest.mark.images


def build(stage: str, home: Path) -> dict[str, str]:
    """Run a build stage's COPY and RUN steps under `home`; return the image's environment."""
    context = home / "app"
    context.mkdir(parents=True)
    image = {"PATH": f"{home}/opt/venv/bin:{os.environ['PATH']}", "HOME": str(home)}
    for line in values(stage, "COPY"):
        *sources, target = line.split()
        for source in sources:
            copy_tracked(source, context / (source if target == "./" else target))
    for line in values(stage, "RUN"):
        if "useradd" not in line:  # needs root
            command = line.replace("/opt/venv", f"{home}/opt/venv").replace(
                " /demo", f" {home}/demo"
            )
            subprocess.run(["sh", "-ec", command], cwd=context, env=image, check=True)
    return image


def copy_tracked(source: str, target: Path):
    """Copy a file or folder of the build context."""
    if (ROOT / source).is_dir():
        shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(ROOT / source, target)


def run_environment(stage: str, image: dict[str, str], **overrides: str) -> dict[str, str]:
    """Return a container's environment: the image's with the variables of `docker run -e`."""
    own = {name: value for name, value in environment(stage).items() if name != "PATH"}
    return own | image | overrides


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A bundle of the demo by the trainer image's command, and the output of a second run."""
    home = tmp_path_factory.mktemp("trainer")
    image = build("trainer-build", home)
    bundles = home / "bundles"
    command = [*exec_form(values("trainer", "ENTRYPOINT")[0]), "run", "--data", f"{home}/demo"]
    command += ["--bundles", str(bundles), "--skip", "if-any"]
    environ = run_environment("trainer", image)
    for _ in range(2):  # the second run has nothing to do
        completed = subprocess.run(
            command, cwd=home, env=environ, check=True, capture_output=True, text=True
        )
    return bundles, completed.stdout


def test_trainer_image_publishes_demo_once(published):
    bundles, second_output = published
    assert (bundles / "current").exists()
    assert "nothing to do" in second_output


def test_service_image_serves_without_torch_until_sigterm(published, tmp_path):
    bundles, _ = published
    image = build("service-build", tmp_path)
    assert not list(tmp_path.glob("opt/venv/lib/python*/site-packages/torch"))
    environ = run_environment(
        "service",
        image,
        ESANS_BUNDLES=str(bundles),
        ESANS_HTTP_HOST="127.0.0.1",
        ESANS_HTTP_PORT="0",
    )
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            exec_form(values("service", "ENTRYPOINT")[0]), cwd=tmp_path, env=environ, stdout=stream
        )
    try:
        url = wait_for_url(log)
        wait_until_healthy(url, environ)
        result = retrieve(url, {"user_id": "user-00001", "k": 5})
        assert len(result["candidates"]) == 5
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


def wait_for_url(log: Path) -> str:
    for _ in range(600):
        for line in log.read_text().splitlines():
            if '"listening"' in line:
                return json.loads(line)["url"]
        time.sleep(0.1)
    raise AssertionError(f"no listening line in {log.read_text()}")


def wait_until_healthy(url: str, environ: dict[str, str]):
    """Run the image's health check until it exits 0."""
    check = exec_form(values("service", "HEALTHCHECK")[0])
    environ = environ | {"ESANS_HTTP_PORT": url.rpartition(":")[2]}
    for _ in range(300):
        if subprocess.run(check, env=environ, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError("the image's health check never passed")


def retrieve(url, query):
    request = urllib.request.Request(
        f"{url}/retrieve", json.dumps(query).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)
