"""Regression tests for corruptions that random testing found."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from index.bundle.manifest import measure_files, read_manifest, write_manifest
from index.bundle.reader import open_bundle
from index.errors import InvalidBundleError


@pytest.fixture
def editable_bundle(bundle_copy, tmp_path):
    """A copy that is not named after a version; opening it updates its digests first."""
    folder = bundle_copy.rename(tmp_path / "renewed")

    def open_edited():
        manifest = read_manifest(folder)
        write_manifest(folder, manifest.model_copy(update={"files": measure_files(folder)}))
        return open_bundle(folder)

    return folder, open_edited


def change_array(path, position, value):
    array = np.load(path)
    array[position] = value
    np.save(path, array)


@pytest.mark.parametrize(
    ("name", "position", "value", "message"),
    [
        ("item_ids.blob.npy", 3, 0xFF, "item_ids.blob is not UTF-8"),
        ("user_ids.blob.npy", 3, 0xFF, "user_ids.blob is not UTF-8"),
        ("item_ids.hashes.npy", 5, 0, "item_ids.hashes are not ascending"),
        ("item_ids.hashes.npy", -1, 2**64 - 1, "item_ids does not map its ids"),
        ("item_ids.rows.npy", 3, -1, "item_ids.rows are within range: False"),
        ("user_ids.rows.npy", 0, -1, "user_ids.rows are within range: False"),
        ("item_ids.rows.npy", [0, 1], [5, 5], "item_ids does not map its ids"),
        ("item_ids.blob.npy", 0, ord("I"), "item_ids does not map its ids"),
    ],
)
def test_open_bundle_corrupt_ids_raise(editable_bundle, name, position, value, message):
    folder, open_edited = editable_bundle
    change_array(folder / name, position, value)
    with pytest.raises(InvalidBundleError, match=message):
        open_edited()


def test_open_bundle_id_splitting_character_raises(editable_bundle):
    folder, open_edited = editable_bundle
    blob, offsets = (
        np.load(folder / "item_ids.blob.npy"),
        np.load(folder / "item_ids.offsets.npy"),
    )
    begin = int(offsets[1])
    blob[begin - 1 : begin + 1] = list("é".encode())
    np.save(folder / "item_ids.blob.npy", blob)
    with pytest.raises(InvalidBundleError, match=r"item_ids\.blob is not UTF-8 in each id"):
        open_edited()


def test_self_test_detects_graph_failing_at_run(editable_bundle):
    folder, open_edited = editable_bundle
    inputs = [
        helper.make_tensor_value_info("history_vectors", TensorProto.FLOAT, ["b", 8]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, ["b", "l"]),
    ]
    outputs = [helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["b", 8])]
    nodes = [helper.make_node("Identity", ["history_vectors"], ["queries"])]
    graph = helper.make_graph(nodes, "flat", inputs, outputs)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(
        helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "user_encoder.onnx"
    )
    with pytest.raises(InvalidBundleError, match="cannot be run: InvalidArgument"):
        open_edited()


def test_open_bundle_external_weights_raise(editable_bundle, tmp_path):
    folder, open_edited = editable_bundle
    (tmp_path / "weights").write_bytes(bytes(32))
    graph = onnx.load(folder / "user_encoder.onnx")
    weights = graph.graph.initializer[0]
    weights.ClearField("raw_data"), weights.ClearField("int64_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "../weights"
    (folder / "user_encoder.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(InvalidBundleError, match=r"user_encoder\.onnx: cannot be read"):
        open_edited()


def test_open_bundle_changed_manifest_raises(bundle_copy):
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["name"] = "another"
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundleError, match="changed after publishing"):
        open_bundle(bundle_copy)
    elsewhere = shutil.copytree(bundle_copy, bundle_copy.with_name("a copy"))
    assert open_bundle(elsewhere).manifest.name == "another"


def test_manifest_invalid_timestamp_raises(bundle_copy):
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["created_at"] = "yesterday"
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundleError, match="created_at: Value error, Invalid isoformat"):
        open_bundle(bundle_copy)
