import json
import re
import shutil

import numpy as np
import pytest

from index.bundle.manifest import (
    HISTORIES,
    REQUIRED,
    facts_of,
)
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.errors import InvalidBundleError
from index.metadata import ATTRIBUTE_FILES, FILTER_FILES
from tests.support.synthetic_bundle import publish_handmade, write_mean_encoder

FILES = [*REQUIRED, *HISTORIES, *ATTRIBUTE_FILES, *FILTER_FILES]
OF_THE_ITEMS = [name for name in FILES if name.startswith(("item", "probe"))]
READ_ONLINE = [name for name in FILES if name not in ("towers.safetensors", "items.parquet")]


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """A bundle of another run: other vectors, other ids, two items more."""
    bundles = tmp_path_factory.mktemp("other")
    publish_handmade(bundles, seed=1, prefix="thing", count=42)
    return BundleRegistry(bundles).current()


def sign_again(folder):
    """Write the manifest anew, so that every digest fits what lies there."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: fact.model_dump() for name, fact in facts_of(folder).items()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def flip_last_byte(path):
    content = bytearray(path.read_bytes() or b"\0")
    content[-1] ^= 0xFF
    path.write_bytes(content)


def test_a_published_bundle_opens_with_all_its_parts(tiny_bundle, published):
    assert tiny_bundle.version == published.name
    assert tiny_bundle.vectors.shape == (40, 8)
    assert tiny_bundle.histories.of("user-0").tolist() == [0, 2, 4]
    assert tiny_bundle.histories.of("user-2").tolist() == []
    assert tiny_bundle.histories.of("nobody") is None


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_one_changed_byte_is_refused_by_name(copied, name):
    flip_last_byte(copied / name)
    with pytest.raises(InvalidBundleError, match=f"- {re.escape(name)}: "):
        open_bundle(copied)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(copied, name):
    (copied / name).unlink()
    with pytest.raises(InvalidBundleError, match=f"- {re.escape(name)}: missing"):
        open_bundle(copied)


@pytest.mark.parametrize("name", OF_THE_ITEMS)
def test_a_file_of_another_run_is_refused_by_name(copied, other, name):
    shutil.copy(other / name, copied / name)
    with pytest.raises(InvalidBundleError, match=f"- {re.escape(name)}: "):
        open_bundle(copied)


SIZED = [
    "item_ids.offsets.npy",
    "item_ids.hashes.npy",
    "item_ids.rows.npy",
    "item_vectors.npy",
    "item_counts.npy",
]


@pytest.mark.parametrize("name", [*SIZED, "items.faiss"])
def test_a_file_of_another_size_is_refused_even_where_the_digests_were_renewed(copied, other, name):
    shutil.copy(other / name, copied / name)
    sign_again(copied)
    with pytest.raises(InvalidBundleError, match=f"{name.removesuffix('.npy')}.*4[23]"):
        open_bundle(copied)


@pytest.mark.parametrize("name", READ_ONLINE)
def test_a_file_of_noise_is_refused_even_where_the_digests_were_renewed(copied, name):
    (copied / name).write_bytes(b"noise" * 100)
    sign_again(copied)
    with pytest.raises(InvalidBundleError, match=f"{name.split('.')[0]}.*cannot be read"):
        open_bundle(copied)


@pytest.mark.parametrize("array", [np.float32(1), np.ones((2, 2)), np.array(["a"])])
@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".npy")])
def test_an_array_of_another_kind_is_a_fault_and_no_crash(copied, name, array):
    np.save(copied / name, array)
    sign_again(copied)
    with pytest.raises(InvalidBundleError, match=name.split(".")[0]):
        open_bundle(copied)


def test_an_encoder_of_another_width_is_refused(copied):
    write_mean_encoder(copied / "user_encoder.onnx", dim=16)
    sign_again(copied)
    with pytest.raises(InvalidBundleError, match=r"user_encoder.onnx has the width 16.*expected 8"):
        open_bundle(copied)


def test_vectors_that_the_probe_was_not_asked_with_are_refused(copied):
    vectors = np.load(copied / "item_vectors.npy")
    np.save(copied / "item_vectors.npy", vectors[::-1])
    sign_again(copied)
    with pytest.raises(InvalidBundleError, match=r"queries are .* off the trainer's"):
        open_bundle(copied)


def test_an_index_of_other_vectors_is_refused_by_the_probe(tmp_path):
    for seed in (1, 2):  # with more items than the probe asks for
        publish_handmade(tmp_path / str(seed), seed=seed, count=200)
    spoilt, other = (BundleRegistry(tmp_path / str(seed)).current() for seed in (1, 2))
    shutil.copy(other / "items.faiss", spoilt / "items.faiss")
    sign_again(spoilt)
    with pytest.raises(InvalidBundleError, match=r"items.faiss: scores of probe 0 are .* off"):
        open_bundle(spoilt)


def test_all_faults_are_told_at_once(copied):
    flip_last_byte(copied / "item_vectors.npy")
    (copied / "items.faiss").unlink()
    with pytest.raises(InvalidBundleError, match="2 faults found") as caught:
        open_bundle(copied)
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b.npy", "..", ".hidden", "x\n.npy"])
def test_a_manifest_that_points_out_of_its_folder_is_refused(copied, name):
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"][name] = {"size_bytes": 0, "sha256": "0" * 64}
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundleError, match=r"files\."):
        open_bundle(copied)


def test_a_link_is_not_a_file_of_a_bundle(copied, tmp_path):
    outside = shutil.move(copied / "item_vectors.npy", tmp_path / "outside.npy")
    (copied / "item_vectors.npy").symlink_to(outside)
    with pytest.raises(InvalidBundleError, match=r"item_vectors.npy: missing \(a plain file"):
        open_bundle(copied)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "format"),
        ({"items": 0}, "items"),
        ({"surprise": 1}, "surprise"),
        ({"width": "wide"}, "width"),
    ],
)
def test_a_manifest_of_another_make_is_refused_by_key(copied, change, told):
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(InvalidBundleError, match=f"- {told}: "):
        open_bundle(copied)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"log_thresholds": {"1": 0.5}, "slopes": {"1": 9}}, "an index without lists"),
        ({"nprobe": 4}, "none of one with"),
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
            "slopes are told of other depths",
        ),
        (
            {"log_thresholds": {"1": 2.0}, "slopes": {"1": 0.5}, "nprobe": 4},
            "greater than or equal to 1",
        ),
    ],
)
def test_reaches_that_cannot_be_are_refused(copied, change, told):
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["index"] |= change
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundleError, match=f"- index.*{told}"):
        open_bundle(copied)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(InvalidBundleError, match="without a manifest it is no bundle"):
        open_bundle(tmp_path)


def test_a_bundle_may_come_without_histories(tmp_path):
    publish_handmade(tmp_path, with_histories=False)
    assert open_bundle(BundleRegistry(tmp_path).current()).histories is None
