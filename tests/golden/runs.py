"""Seeded training runs through the command line, and digests of the published bundles."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.numpy import load_file

from tests.support.preforked import run
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
[evaluation]
ease_lambdas = [250.0]
[training.sampler]
"""
SAMPLERS = {
    "default": 'name = "in-batch"',
    "mixed": 'name = "mixed"\ncount = 64',
    "esans": 'name = "esans"\neasy = 32\nhard = 2\nin_batch_histories = 0\nmax_cell_share = 0.02',
}
MAP_ARRAYS = ("codes1", "codes2", "centroids")
LIBRARIES = ("torch", "numpy", "faiss-cpu", "scikit-learn", "onnxruntime")
MIN_WEIGHTS = 8  # smaller arrays may be constants of the graph
SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def train(sampler, folder):
    """Train on a planted world; return the published bundle."""
    data, bundles, config = folder / "world", folder / sampler, folder / f"{sampler}.toml"
    if not data.exists():
        write_tiny_world(data, users=120, items=160)
    config.write_text(CONFIG + SAMPLERS[sampler])
    options = ["run", "--data", data, "--bundles", bundles, "--config", config, "--force"]
    settings = environment(**SINGLE_THREAD)
    status, errors, output = run("trainer", *map(str, options), environment=settings)
    assert status == 0, output + errors
    (manifest,) = bundles.glob("*/manifest.json")
    return manifest.parent


def results_of(bundle):
    """Exact digests, offline metrics and a few statistics of the vectors."""
    return {
        "digests": digests_of(bundle),
        "metrics": metrics_of(bundle),
        "statistics": statistics_of(np.load(bundle / "item_vectors.npy")),
    }


def digests_of(bundle):
    """Digests of weights, vectors, counts and the cluster map; of arrays, not of files."""
    digests = {
        "item_vectors": digest_of(np.load(bundle / "item_vectors.npy")),
        "item_counts": digest_of(np.load(bundle / "item_counts.npy")),
        "towers": digest_of_all(load_file(bundle / "towers.safetensors").values()),
        "user_encoder": digest_of_all(weights_of(bundle / "user_encoder.onnx")),
        "item_encoder": digest_of_all(weights_of(bundle / "item_encoder.onnx")),
    }
    for name in MAP_ARRAYS:
        path = bundle / f"cluster_map.{name}.npy"
        if path.exists():
            digests[f"cluster_map.{name}"] = digest_of(np.load(path))
    return digests


def weights_of(path):
    """All weights of an ONNX graph."""
    graph = onnx.load(path).graph
    arrays = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    return [array for array in arrays if array.dtype == np.float32 and array.size >= MIN_WEIGHTS]


def digest_of(array):
    """Digest of an array's dtype, shape and values."""
    described = f"{array.dtype.name} {array.shape}".encode()
    return hashlib.sha256(described + np.ascontiguousarray(array).tobytes()).hexdigest()


def digest_of_all(arrays):
    """Digest of several arrays, independent of their order and names."""
    return hashlib.sha256("".join(sorted(map(digest_of, arrays))).encode()).hexdigest()


def metrics_of(bundle):
    """Offline metrics of the model and its baselines, and the training curve."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    test = manifest["metrics"]["test"]
    metrics = {name: _numbers(test[name]) for name in ("model", "popularity", "ease")}
    training = manifest["run"]["training"]
    curve = [
        {"loss": epoch["loss"], "recall@50": epoch["recall@50"]} for epoch in training["curve"]
    ]
    return metrics | {"curve": curve, "steps": training["steps"], "cases": test["cases"]}


def _numbers(metrics):
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def statistics_of(vectors):
    """Statistics that are robust to rounding; even and odd items are planted apart."""
    even, odd = vectors[0::2].mean(axis=0), vectors[1::2].mean(axis=0)
    return {
        "norm": float(np.linalg.norm(vectors, axis=1).mean()),
        "even": float(np.linalg.norm(even)),
        "odd": float(np.linalg.norm(odd)),
        "even_odd": float(even @ odd),
        "similarity": float((vectors @ vectors.T).mean()),
    }


def platform_of():
    """Properties of the machine that rounding depends on."""
    return {
        "cpu": _cpu(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def _cpu():
    """Name, family and model of the processor; its architecture where these are unknown."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.machine()
    lines = path.read_text().partition("\n\n")[0].splitlines()
    fields = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    return " ".join(fields.get(name, "").strip() for name in ("model name", "cpu family", "model"))
