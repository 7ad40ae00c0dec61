"""What bundles spoilt at random slipped past once, and no longer does."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from index.bundle.manifest import facts_of, read_manifest, write_manifest
from index.bundle.reader import open_bundle
from index.errors import InvalidBundleError


@pytest.fixture
def renewed(copied, tmp_path):
    """A copy under no version's name; its digests are made anew when it is opened."""
    folder = copied.rename(tmp_path / "renewed")

    def open_anew():
        manifest = read_manifest(folder)
        write_manifest(folder, manifest.model_copy(update={"files": facts_of(folder)}))
        return open_bundle(folder)

    return folder, open_anew


def change(path, place, value):
    array = np.load(path)
    array[place] = value
    np.save(path, array)


@pytest.mark.parametrize(
    ("name", "place", "value", "told"),
    [
        ("item_ids.blob.npy", 3, 0xFF, "item_ids.blob is no UTF-8"),
        ("user_ids.blob.npy", 3, 0xFF, "user_ids.blob is no UTF-8"),
        ("item_ids.hashes.npy", 5, 0, "item_ids.hashes do not ascend"),
        ("item_ids.hashes.npy", -1, 2**64 - 1, "item_ids does not find its own ids"),
        ("item_ids.rows.npy", 3, -1, "item_ids.rows are within range: False"),
        ("user_ids.rows.npy", 0, -1, "user_ids.rows are within range: False"),
        ("item_ids.rows.npy", [0, 1], [5, 5], "item_ids does not find its own ids"),
        ("item_ids.blob.npy", 0, ord("I"), "item_ids does not find its own ids"),
    ],
)
def test_ids_that_would_fail_when_asked_are_refused(renewed, name, place, value, told):
    folder, open_anew = renewed
    change(folder / name, place, value)
    with pytest.raises(InvalidBundleError, match=told):
        open_anew()


def test_ids_that_cut_a_character_are_refused(renewed):
    folder, open_anew = renewed
    blob, offsets = (
        np.load(folder / "item_ids.blob.npy"),
        np.load(folder / "item_ids.offsets.npy"),
    )
    begin = int(offsets[1])
    blob[begin - 1 : begin + 1] = list("é".encode())
    np.save(folder / "item_ids.blob.npy", blob)
    with pytest.raises(InvalidBundleError, match=r"item_ids\.blob is no UTF-8, id by id"):
        open_anew()


def test_a_graph_that_fails_only_when_it_is_asked_is_refused(renewed):
    folder, open_anew = renewed
    inputs = [
        helper.make_tensor_value_info("history_vectors", TensorProto.FLOAT, ["b", 8]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, ["b", "l"]),
    ]
    outputs = [helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["b", 8])]
    nodes = [helper.make_node("Identity", ["history_vectors"], ["queries"])]
    graph = helper.make_graph(nodes, "flat", inputs, outputs)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(
        helper.make_model(graph, opset_imports=opset, ir_version=9),
        folder / "user_encoder.onnx",
    )
    with pytest.raises(InvalidBundleError, match="cannot be asked: InvalidArgument"):
        open_anew()


def test_weights_outside_the_folder_are_not_read(renewed, tmp_path):
    folder, open_anew = renewed
    (tmp_path / "weights").write_bytes(bytes(32))
    graph = onnx.load(folder / "user_encoder.onnx")
    weights = graph.graph.initializer[0]
    weights.ClearField("raw_data"), weights.ClearField("int64_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "../weights"
    (folder / "user_encoder.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(InvalidBundleError, match=r"user_encoder\.onnx: cannot be read"):
        open_anew()


def test_a_manifest_that_was_changed_is_refused_by_its_folders_name(copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["name"] = "another"
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundleError, match="it was changed since it was published"):
        open_bundle(copied)
    elsewhere = shutil.copytree(copied, copied.with_name("a copy"))
    assert open_bundle(elsewhere).manifest.name == "another"


def test_a_moment_that_is_none_is_refused(copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["created_at"] = "yesterday"
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundleError, match="created_at: Value error, Invalid isoformat"):
        open_bundle(copied)
