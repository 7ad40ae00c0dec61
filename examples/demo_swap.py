"""`make demo-swap`: publish a new cluster map while a training run follows the store.

The store is the Redis at ESANS_REDIS_URL, else a redis-server that this command starts, else,
where none is installed, a folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tabulate import tabulate

from examples.demo import HOME, exit_on_signals, generated_shop
from index.bundle.manifest import read_manifest
from index.bundle.registry import BundleRegistry

BUNDLES = HOME / "swap-bundles"
CONFIG = HOME / "swap.toml"
EPOCHS = 4
START_LIMIT_S = 10
SWAPPED = "negatives come from cluster map"


def main() -> int:
    """Train with a swap on the way, and show both maps in the manifest."""
    exit_on_signals()
    shop = generated_shop(HOME / "shop")
    CONFIG.write_text(f'[training]\nepochs = {EPOCHS}\n[training.sampler]\nname = "esans"\n')
    with cluster_store() as store:
        publish_map(shop, store, seed=0)
        if train_and_publish_map(shop, store):
            return 1
    bundle = BundleRegistry(BUNDLES).current()
    columns = ("from_step", "version", "published_version", "source")
    maps = [[entry[name] for name in columns] for entry in read_manifest(bundle).cluster_maps]
    print(f"\ncluster_maps in {bundle / 'manifest.json'}:\n\n{tabulate(maps, columns)}")
    return 0


@contextmanager
def cluster_store() -> Iterator[list[str]]:
    """Yield the options that select the store; end the Redis that was started."""
    server = shutil.which("redis-server")
    if os.environ.get("ESANS_REDIS_URL"):
        yield []
    elif server is None:
        print("redis-server is not installed, so a folder is the store")
        yield []
    else:
        with tempfile.TemporaryDirectory() as folder:
            socket = Path(folder) / "redis.sock"
            command = [server, "--port", "0", "--unixsocket", str(socket), "--save", ""]
            print(f"$ {' '.join(command)} &", flush=True)
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder) as process:
                wait_for(socket)
                try:
                    yield ["--redis", f"unix://{socket}"]
                finally:
                    process.terminate()


def wait_for(path: Path) -> None:
    """Wait until a file exists; exit after START_LIMIT_S."""
    limit = time.monotonic() + START_LIMIT_S
    while not path.exists():
        if time.monotonic() > limit:
            raise SystemExit(f"redis-server did not create {path} within {START_LIMIT_S} s")
        time.sleep(0.05)


def publish_map(shop: Path, store: list[str], seed: int) -> None:
    """Build the cluster map of the shop and publish it to the store."""
    options = ["--data", str(shop), "--seed", str(seed), "--publish", *store]
    command = trainer("clusters", *options, *([] if store else ["--bundles", str(BUNDLES)]))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def train_and_publish_map(shop: Path, store: list[str]) -> int:
    """Train; publish another map once the run samples from the first. Return the exit status."""
    options = ["--data", str(shop), "--bundles", str(BUNDLES), "--config", str(CONFIG)]
    command = trainer("run", *options, "--follow", "--force", *store)
    is_published = False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            if SWAPPED in line and not is_published:
                publish_map(shop, store, seed=1)
                is_published = True
    return process.returncode


def trainer(*words: str) -> list[str]:
    """Return a command of the trainer, after printing it."""
    print(f"$ python -m trainer {' '.join(words)}", flush=True)
    return [sys.executable, "-m", "trainer", *words]


if __name__ == "__main__":
    sys.exit(main())
