"""`make demo`: generate a shop, train, publish, serve and query it; or use your own dataset.

Everything is kept under `.demo/`, so a second run starts in seconds.
"""

import argparse
import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import httpx

from examples.catalogue import ShopSize, make_catalogue
from examples.demo_clusters import show_clusters
from trainer.data.dataset import Dataset, load_dataset
from trainer.data.interactions import TEST, TRAIN, VALID, build_histories
from trainer.esans.stats import title_column

HOME = Path(".demo")
PORT = 8000
START_LIMIT_S = 120
SHOWN = 10
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit status."""
    parsed = build_parser().parse_args(arguments)
    exit_on_signals()
    folder = parsed.data or generated_shop(HOME / "shop")
    bundles = bundles_of(parsed.data)
    if train(folder, bundles):
        return 1
    with serving(bundles, choose_port() if parsed.port is None else parsed.port) as url:
        data = load_dataset(folder)
        titles = item_titles(data)
        show_result(url, data, titles, generated=parsed.data is None)
        show_clusters(url, folder, bundles, data, titles)
        if not parsed.once:
            print(f"\nserving on {url} (docs: {url}/docs); Ctrl-C stops it", flush=True)
            wait_for_signal()
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="your own dataset (default: a generated shop)"
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="PORT",
        help=f"to serve on; 0: a free one (default: {PORT}, or a free one if that is taken)",
    )
    parser.add_argument("--once", action="store_true", help="exit after the first query")
    return parser


def bundles_of(data: Path | None) -> Path:
    """Return the folder of bundles: one for the generated shop, one for each dataset."""
    if data is None:
        return HOME / "bundles"
    return HOME / f"bundles-{hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:8]}"


def exit_on_signals() -> None:
    """Exit without a traceback on a signal, so that `serving` ends the service."""

    def stop(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    for each in STOP_SIGNALS:
        signal.signal(each, stop)


def wait_for_signal() -> None:
    """Sleep until a signal asks to stop."""
    with suppress(SystemExit):
        signal.pause()


def choose_port() -> int:
    """Return the usual port, or 0 for a free one if it is taken."""
    try:
        with socket.create_server(("127.0.0.1", PORT)):
            return PORT
    except OSError:
        print(f"port {PORT} is taken, so the service picks a free one")
        return 0


def generated_shop(folder: Path) -> Path:
    """Generate the demo shop unless it exists."""
    if not folder.exists():
        print("generating a shop: 3,000 items, 4,000 users; all data is synthetic")
        beside = folder.with_name(f"{folder.name}.part")
        make_catalogue(beside, ShopSize(), seed=7)
        beside.rename(folder)
    return folder


def train(folder: Path, bundles: Path) -> int:
    """Train and publish unless the current bundle has this data; return the exit status."""
    command = [sys.executable, "-m", "trainer", "run", "--data", str(folder)]
    command += ["--bundles", str(bundles), "--skip", "if-same"]
    print(f"$ {' '.join(['python', *command[1:]])}", flush=True)
    return subprocess.run(command, check=False, process_group=0).returncode


@contextmanager
def serving(bundles: Path, port: int) -> Iterator[str]:
    """Serve a folder of bundles; yield the URL once the service is ready, then end the service.

    In a process group of its own, as training: Ctrl-C reaches only the demo, which ends both.
    """
    log = HOME / "service.log"
    command = [sys.executable, "-m", "service", "--bundles", str(bundles), "--port", str(port)]
    print(f"$ {' '.join(['python', *command[1:]])} > {log}", flush=True)
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, process_group=0
        )
    try:
        yield wait_until_ready(process, log)
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return the service's URL once /readyz returns 200; exit with its log if it ends."""
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise SystemExit(f"the service exited during startup:\n{log.read_text()}")
        url = listening_url(log)
        if url and is_ready(url):
            return url
        time.sleep(0.1)
    raise SystemExit(f"the service was not ready within {START_LIMIT_S} s:\n{log.read_text()}")


def listening_url(log: Path) -> str | None:
    """Find the URL in the service's log."""
    for line in log.read_text().splitlines():
        if '"listening"' in line:
            return str(json.loads(line)["url"])
    return None


def is_ready(url: str) -> bool:
    """Return whether /readyz returns 200."""
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def show_result(url: str, data: Dataset, titles: dict[str, str], *, generated: bool) -> None:
    """Query one user; print the equivalent curl command and the candidates with titles."""
    all_histories = build_histories(data.interactions, (TRAIN, VALID, TEST), len(data.user_ids))
    user_id, history = data.user_ids[-1], all_histories.get(len(data.user_ids) - 1)
    query = {"user_id": user_id, "k": SHOWN}
    response = httpx.post(f"{url}/retrieve", json=query, timeout=10, trust_env=False)
    result = response.raise_for_status().json()
    body = json.dumps(query)
    print(f"\ncurl -s {url}/retrieve -H 'content-type: application/json' -d '{body}'")
    print(json.dumps(result)[:400] + " ...")
    print(f"\nlast items of user {user_id}{' (a generated user)' if generated else ''}:")
    for row in history[-5:]:
        print(f"    {titles[data.item_ids[row]]}")
    print("candidates:")
    for candidate in result["candidates"]:
        print(f"    {candidate['score']:.3f}  {titles[candidate['item_id']]}")


def item_titles(data: Dataset) -> dict[str, str]:
    """Return the title of each item by its id; the id where the catalogue has no title."""
    titles = data.attributes[title_column(data.attributes)].to_pylist()
    return {i: str(title or i) for i, title in zip(data.item_ids, titles, strict=True)}


if __name__ == "__main__":
    sys.exit(main())
