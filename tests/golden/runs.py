"""Seeded training runs, as a person starts them, and digests of what they publish."""

import hashlib
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.numpy import load_file

from tests.conftest import ROOT
from tests.support.service_process import environment
from tests.support.tiny_dataset import write_tiny_world

CONFIG = """\
seed = 11
[towers]
embedding_dim = 16
history_length = 8
[training]
device = "cpu"
threads = 1
batch_size = 64
epochs = 3
patience = 3
learning_rate = 0.005
temperature = 0.1
[clusters]
alignment_epochs = 4
level_1_codes = 6
level_2_codes = 3
[training.sampler]
"""
SAMPLERS = {
    "default": 'name = "in-batch"',
    "mixed": 'name = "mixed"\ncount = 64',
    "esans": 'name = "esans"\neasy = 32\nhard = 2\nin_batch = true\nlog_q_share = 1.0',
}
MAP_ARRAYS = ("codes1", "codes2", "centroids")
LIBRARIES = ("torch", "numpy", "faiss-cpu", "scikit-learn", "onnxruntime")
LEAST_WEIGHTS = 8  # what is smaller may be a constant of the graph
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
TIMEOUT_S = 300


def train(sampler, folder):
    """Train on a planted world; return the folder of what was published."""
    data, bundles, config = folder / "world", folder / sampler, folder / f"{sampler}.toml"
    if not data.exists():
        write_tiny_world(data, users=120, items=160)
    config.write_text(CONFIG + SAMPLERS[sampler])
    command = ["-m", "trainer", "run", "--data", data, "--bundles", bundles, "--config", config]
    done = subprocess.run(
        [sys.executable, *map(str, command), "--force"],
        cwd=ROOT, env=environment(**ONE_THREAD), capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (manifest,) = bundles.glob("*/manifest.json")
    return manifest.parent


def results_of(bundle):
    """What is compared: exact digests, offline metrics and a few statistics of the vectors."""
    return {
        "digests": digests_of(bundle),
        "metrics": metrics_of(bundle),
        "statistics": statistics_of(np.load(bundle / "item_vectors.npy")),
    }


def digests_of(bundle):
    """Digests of weights, vectors, counts and the cluster map; of arrays, not of files."""
    found = {
        "item_vectors": digest_ids(np.load(bundle / "item_vectors.npy")),
        "item_counts": digest_ids(np.load(bundle / "item_counts.npy")),
        "towers": digest_of_all(load_file(bundle / "towers.safetensors").values()),
        "user_encoder": digest_of_all(weights_of(bundle / "user_encoder.onnx")),
        "item_encoder": digest_of_all(weights_of(bundle / "item_encoder.onnx")),
    }
    for name in MAP_ARRAYS:
        path = bundle / f"cluster_map.{name}.npy"
        if path.exists():
            found[f"cluster_map.{name}"] = digest_ids(np.load(path))
    return found


def weights_of(path):
    """The weights in a graph, whatever they are called there."""
    graph = onnx.load(path).graph
    arrays = [numpy_helper.to_array(one) for one in graph.initializer]
    return [one for one in arrays if one.dtype == np.float32 and one.size >= LEAST_WEIGHTS]


def digest_ids(array):
    """The digest of an array: its type, its shape and its numbers."""
    described = f"{array.dtype.name} {array.shape}".encode()
    return hashlib.sha256(described + np.ascontiguousarray(array).tobytes()).hexdigest()


def digest_of_all(arrays):
    """One digest of many arrays, whatever their order and names."""
    return hashlib.sha256("".join(sorted(map(digest_ids, arrays))).encode()).hexdigest()


def metrics_of(bundle):
    """The offline metrics of the model and of what it is compared with, and the curve."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    test = manifest["metrics"]["test"]
    told = {name: _numbers(test[name]) for name in ("model", "popularity", "ease")}
    training = manifest["run"]["training"]
    curve = [{"loss": one["loss"], "recall@50": one["recall@50"]} for one in training["curve"]]
    return told | {"curve": curve, "steps": training["steps"], "cases": test["cases"]}


def _numbers(measures):
    return {name: one for name, one in measures.items() if isinstance(one, int | float)}


def statistics_of(vectors):
    """A few statistics that no rounding changes; even and odd items are planted apart."""
    even, odd = vectors[0::2].mean(axis=0), vectors[1::2].mean(axis=0)
    return {
        "norm": float(np.linalg.norm(vectors, axis=1).mean()),
        "even": float(np.linalg.norm(even)),
        "odd": float(np.linalg.norm(odd)),
        "even_odd": float(even @ odd),
        "similarity": float((vectors @ vectors.T).mean()),
    }


def platform_of():
    """What the last bit of a weight depends on."""
    return {
        "cpu": _cpu(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def _cpu():
    """The processor's name, family and model; its architecture where no file tells them."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.machine()
    lines = path.read_text().partition("\n\n")[0].splitlines()
    told = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    return " ".join(told.get(name, "").strip() for name in ("model name", "cpu family", "model"))
