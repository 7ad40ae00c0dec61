"""Synthetic towers: ONNX graphs of a few nodes whose outputs are easy to verify."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIM = 8
MODALITIES = {"look": DIM, "words": 3}
BY_WORD = np.eye(3, DIM, k=2, dtype=np.float32)  # each word feature adds to axis 2, 3 or 4
BY_PRESENCE = np.array([[0.25] * DIM, [-0.5] * DIM], dtype=np.float32)  # one row per modality


def write_mean_encoder(path, dim=DIM):
    """Write a user tower of five nodes: the normalised mean of the history."""
    nodes = [
        helper.make_node("Cast", ["mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
        helper.make_node("Mul", ["history_vectors", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["queries"], axis=-1, p=2),
    ]
    inputs = [
        helper.make_tensor_value_info("history_vectors", TensorProto.FLOAT, ["b", "l", dim]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, ["b", "l"]),
    ]
    outputs = [helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["b", dim])]
    constants = [
        helper.make_tensor("last", TensorProto.INT64, [1], [2]),
        helper.make_tensor("middle", TensorProto.INT64, [1], [1]),
    ]
    _save("mean", nodes, inputs, outputs, constants, path)


def write_content_encoder(path):
    """Write an item tower: look + words @ BY_WORD + presence @ BY_PRESENCE, normalised."""
    nodes = [
        helper.make_node("MatMul", ["modality_words", "by_word"], ["word_sum"]),
        helper.make_node("Cast", ["presence"], ["present"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["present", "by_presence"], ["own"]),
        helper.make_node("Sum", ["modality_look", "word_sum", "own"], ["sum"]),
        helper.make_node("LpNormalization", ["sum"], ["vectors"], axis=-1, p=2),
    ]
    inputs = [
        helper.make_tensor_value_info(f"modality_{name}", TensorProto.FLOAT, ["b", width])
        for name, width in MODALITIES.items()
    ]
    inputs.append(helper.make_tensor_value_info("presence", TensorProto.BOOL, ["b", 2]))
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["b", DIM])]
    constants = [
        numpy_helper.from_array(BY_WORD, "by_word"),
        numpy_helper.from_array(BY_PRESENCE, "by_presence"),
    ]
    _save("content", nodes, inputs, outputs, constants, path)


def visual_of(vectors):
    """Return the `look` features that the content encoder maps to these unit vectors."""
    return 3 * vectors - BY_PRESENCE[0]


def _save(name, nodes, inputs, outputs, constants, path):
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))
