import json
import re
import shutil

import numpy as np
import pytest

from index.bundle.manifest import HISTORIES, REQUIRED
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.errors import InvalidBundleError
from index.metadata import ATTRIBUTE_FILES, FILTER_FILES
from tests.support.synthetic_bundle import publish_handmade, update_digests
from tests.support.synthetic_towers import write_mean_encoder

FILES = [*REQUIRED, *HISTORIES, *ATTRIBUTE_FILES, *FILTER_FILES]
ITEM_FILES = [name for name in FILES if name.startswith(("item", "probe"))]
SERVING_FILES = [name for name in FILES if name not in ("towers.safetensors", "items.parquet")]


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """A bundle of another run: other vectors, other ids, two more items."""
    bundles = tmp_path_factory.mktemp("other")
    publish_handmade(bundles, seed=1, prefix="thing", count=42)
    return BundleRegistry(bundles).current()


def flip_last_byte(path):
    content = bytearray(path.read_bytes() or b"\0")
    content[-1] ^= 0xFF
    path.write_bytes(content)


def test_open_bundle_reads_all_parts(tiny_bundle, published):
    assert tiny_bundle.version == published.name
    assert tiny_bundle.vectors.shape == (40, 8)
    assert tiny_bundle.histories.get("user-0").tolist() == [0, 2, 4]
    assert tiny_bundle.histories.get("user-2").tolist() == []
    assert tiny_bundle.histories.get("unknown-user") is None


@pytest.mark.parametrize("name", FILES)
def test_open_bundle_changed_byte_names_file(bundle_copy, name):
    flip_last_byte(bundle_copy / name)
    with pytest.raises(InvalidBundleError, match=f"- {re.escape(name)}: "):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("name", FILES)
def test_open_bundle_missing_file_names_file(bundle_copy, name):
    (bundle_copy / name).unlink()
    with pytest.raises(InvalidBundleError, match=f"- {re.escape(name)}: missing"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("name", ITEM_FILES)
def test_open_bundle_file_of_other_run_names_file(bundle_copy, other, name):
    shutil.copy(other / name, bundle_copy / name)
    with pytest.raises(InvalidBundleError, match=f"- {re.escape(name)}: "):
        open_bundle(bundle_copy)


SIZED = [
    "item_ids.offsets.npy",
    "item_ids.hashes.npy",
    "item_ids.rows.npy",
    "item_vectors.npy",
    "item_counts.npy",
]


@pytest.mark.parametrize("name", [*SIZED, "items.faiss"])
def test_open_bundle_other_size_with_new_digests_raises(bundle_copy, other, name):
    shutil.copy(other / name, bundle_copy / name)
    update_digests(bundle_copy)
    with pytest.raises(InvalidBundleError, match=f"{name.removesuffix('.npy')}.*4[23]"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("name", SERVING_FILES)
def test_open_bundle_noise_with_new_digests_raises(bundle_copy, name):
    (bundle_copy / name).write_bytes(b"noise" * 100)
    update_digests(bundle_copy)
    with pytest.raises(InvalidBundleError, match=f"{name.split('.')[0]}.*cannot be read"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("array", [np.float32(1), np.ones((2, 2)), np.array(["a"])])
@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".npy")])
def test_open_bundle_array_of_other_type_raises(bundle_copy, name, array):
    np.save(bundle_copy / name, array)
    update_digests(bundle_copy)
    with pytest.raises(InvalidBundleError, match=name.split(".")[0]):
        open_bundle(bundle_copy)


def test_open_bundle_encoder_of_other_width_raises(bundle_copy):
    write_mean_encoder(bundle_copy / "user_encoder.onnx", dim=16)
    update_digests(bundle_copy)
    with pytest.raises(InvalidBundleError, match=r"user_encoder.onnx has the width 16.*expected 8"):
        open_bundle(bundle_copy)


def test_self_test_detects_other_vectors(bundle_copy):
    vectors = np.load(bundle_copy / "item_vectors.npy")
    np.save(bundle_copy / "item_vectors.npy", vectors[::-1])
    update_digests(bundle_copy)
    with pytest.raises(InvalidBundleError, match="query vectors are off by"):
        open_bundle(bundle_copy)


def test_self_test_detects_index_of_other_vectors(tmp_path):
    for seed in (1, 2):  # more items than the self-test retrieves
        publish_handmade(tmp_path / str(seed), seed=seed, count=200)
    corrupt, other = (BundleRegistry(tmp_path / str(seed)).current() for seed in (1, 2))
    shutil.copy(other / "items.faiss", corrupt / "items.faiss")
    update_digests(corrupt)
    with pytest.raises(InvalidBundleError, match=r"items.faiss: scores of query 0 are off"):
        open_bundle(corrupt)


def test_open_bundle_reports_all_faults(bundle_copy):
    flip_last_byte(bundle_copy / "item_vectors.npy")
    (bundle_copy / "items.faiss").unlink()
    with pytest.raises(InvalidBundleError, match="2 faults found") as caught:
        open_bundle(bundle_copy)
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b.npy", "..", ".hidden", "x\n.npy"])
def test_manifest_with_path_outside_folder_raises(bundle_copy, name):
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["files"][name] = {"size_bytes": 0, "sha256": "0" * 64}
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundleError, match=r"files\."):
        open_bundle(bundle_copy)


def test_open_bundle_symlink_raises(bundle_copy, tmp_path):
    outside = shutil.move(bundle_copy / "item_vectors.npy", tmp_path / "outside.npy")
    (bundle_copy / "item_vectors.npy").symlink_to(outside)
    with pytest.raises(InvalidBundleError, match=r"item_vectors.npy: missing \(a plain file"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format"),
        ({"items": 0}, "items"),
        ({"surprise": 1}, "surprise"),
        ({"width": "wide"}, "width"),
    ],
)
def test_manifest_invalid_key_is_named(bundle_copy, change, message):
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(InvalidBundleError, match=f"- {message}: "):
        open_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_thresholds": {"1": 0.5}, "slopes": {"1": 9}}, "log_thresholds without nprobe"),
        ({"nprobe": 4}, "nprobe without them"),
        (
            {"log_thresholds": {"0.5": 0.5}, "slopes": {"0.5": 9}, "nprobe": 4},
            "greater than or equal to 1",
        ),
        (
            {"log_thresholds": {"1": 51}, "slopes": {"1": 9}, "nprobe": 4},
            "less than or equal to 50",
        ),
        (
            {"log_thresholds": {"1": 2.0}, "slopes": {"2": 9.0}, "nprobe": 4},
            "slopes and log_thresholds of different depths",
        ),
        (
            {"log_thresholds": {"1": 2.0}, "slopes": {"1": 0.5}, "nprobe": 4},
            "greater than or equal to 1",
        ),
    ],
)
def test_manifest_invalid_policies_raise(bundle_copy, change, message):
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["index"] |= change
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundleError, match=f"- index.*{message}"):
        open_bundle(bundle_copy)


def test_open_bundle_without_manifest_raises(tmp_path):
    with pytest.raises(InvalidBundleError, match="a bundle needs a manifest"):
        open_bundle(tmp_path)


def test_open_bundle_without_histories(tmp_path):
    publish_handmade(tmp_path, with_histories=False)
    assert open_bundle(BundleRegistry(tmp_path).current()).histories is None
