"""Train with several seeds through the command line, and tabulate the metrics.

python -m benchmarks.quality --data DIR --seeds 0 1 2
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

from index.bundle.manifest import read_manifest
from index.bundle.registry import BundleRegistry

SHOWN = ("recall@50", "recall@200", "ndcg@50")


def main() -> int:
    """Run all seeds in sequence; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the dataset")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: the defaults")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parsed = parser.parse_args()
    rows = [train_once(parsed.data, parsed.config, seed) for seed in parsed.seeds]
    print(tabulate(lines_of(rows, parsed.seeds), ["", *SHOWN, "seconds"], floatfmt=".4f"))
    return 0


def train_once(data: Path, config: Path | None, seed: int) -> dict[str, Any]:
    """Train and publish into a temporary folder; return metrics and wall seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trainer", "run", "--data", str(data), "--force"]
        command += ["--bundles", folder, "--seed", str(seed)]
        command += ["--config", str(config)] if config else []
        start = time.monotonic()
        subprocess.run(command, check=True)
        seconds = time.monotonic() - start
        report = read_manifest(BundleRegistry(Path(folder)).current()).metrics["test"]
    return report | {"seconds": seconds}


def lines_of(rows: list[dict[str, Any]], seeds: list[int]) -> list[list[Any]]:
    """Build a line per seed, their mean and standard deviation, and the baselines."""
    values = [[*(row["model"][name] for name in SHOWN), row["seconds"]] for row in rows]
    lines = [[f"seed {seed}", *line] for seed, line in zip(seeds, values, strict=True)]
    columns = list(zip(*values, strict=True))
    lines.append(["mean", *(mean(column) for column in columns)])
    if len(rows) > 1:
        lines.append(["standard deviation", *(stdev(column) for column in columns)])
    for name in ("popularity", "ease"):
        if name in rows[0]:
            lines.append([name, *(rows[0][name][metric] for metric in SHOWN)])
    return lines


if __name__ == "__main__":
    sys.exit(main())
