"""User and item encoders: the towers exported as ONNX. Only this module imports onnxruntime.

Each session has one thread: a query takes microseconds, and a thread pool would cost more.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# onnxruntime reads this when it is imported; 0 enables telemetry
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from index.arrays import Features, Floats, Rows

USER_INPUTS = ("history_vectors", "mask")
MODALITY_PREFIX = "modality_"


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open an ONNX graph on one CPU thread.

    Raises an exception of onnxruntime if the file is not a graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class UserEncoder:
    """User tower: encodes a history of item vectors as a query vector.

    Attributes:
        embedding_dim: Width of item and query vectors.
        max_length: Number of newest history items that the encoder reads.
    """

    def __init__(self, path: Path, max_length: int) -> None:
        self._session = open_session(path)
        names = [node.name for node in self._session.get_inputs()]
        if names != list(USER_INPUTS):
            raise ValueError(f"inputs are {names}, expected {list(USER_INPUTS)}")
        self.max_length = max_length
        self.embedding_dim = int(self._session.get_outputs()[0].shape[-1])

    def encode(self, history_vectors: Floats, mask: NDArray[np.bool_]) -> Floats:
        """Encode a padded batch.

        Args:
            history_vectors: [batch, length, dim], newest first, padded on the right.
            mask: [batch, length], True where there is an item.

        Returns:
            [batch, dim], unit norm.
        """
        feed = {"history_vectors": history_vectors, "mask": mask}
        return np.asarray(self._session.run(None, feed)[0], dtype=np.float32)

    def encode_histories(self, vectors: Floats, histories: Sequence[Rows]) -> Floats:
        """Encode the newest `max_length` items of each history.

        Args:
            vectors: [items, dim] item vectors.
            histories: One non-empty array of item rows per user, oldest first.

        Returns:
            [len(histories), dim], unit norm.
        """
        newest_first = [history[::-1][: self.max_length] for history in histories]
        rows, mask = pad_histories(newest_first)
        return self.encode(vectors.take(rows, axis=0), mask)


def pad_histories(arrays: Sequence[Rows]) -> tuple[Rows, NDArray[np.bool_]]:
    """Pad arrays on the right with row 0 to one length; return them and the mask of real rows."""
    if len(arrays) == 1:
        return arrays[0][np.newaxis], np.ones((1, len(arrays[0])), dtype=np.bool_)
    lengths = np.array([len(array) for array in arrays])
    mask: NDArray[np.bool_] = np.arange(lengths.max()) < lengths[:, np.newaxis]
    rows = np.zeros(mask.shape, dtype=np.int32)
    rows[mask] = np.concatenate(arrays)
    return rows, mask


class ItemEncoder:
    """Content path of the item tower: encodes items that have no id embedding.

    Attributes:
        widths: modality -> feature width, in the order of the graph's inputs.
        embedding_dim: Width of item vectors.
    """

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        self.widths = {
            node.name.removeprefix(MODALITY_PREFIX): int(node.shape[-1])
            for node in self._session.get_inputs()
            if node.name.startswith(MODALITY_PREFIX)
        }
        self.modalities = list(self.widths)
        self.embedding_dim = int(self._session.get_outputs()[0].shape[-1])

    def encode(self, features: Mapping[str, Features], count: int) -> Floats:
        """Encode new items from their raw features.

        Args:
            features: modality -> [count, width]; rows of NaN or zeros and absent modalities
                are missing.
            count: Number of items.

        Returns:
            [count, dim], unit norm.

        Raises:
            ValueError: The encoder does not have one of the modalities.
        """
        unknown = sorted(set(features) - set(self.modalities))
        if unknown:
            raise ValueError(f"unknown modalities {unknown}; expected {self.modalities}")
        feed: dict[str, NDArray[np.generic]] = {}
        presence = np.zeros((count, max(1, len(self.modalities))), dtype=np.bool_)
        for column, (name, width) in enumerate(self.widths.items()):
            rows = features.get(name, np.full((count, width), np.nan, dtype=np.float32))
            filled = np.nan_to_num(rows).astype(np.float32, copy=False)
            presence[:, column] = filled.any(axis=1)
            feed[MODALITY_PREFIX + name] = filled
        feed["presence"] = presence
        return np.asarray(self._session.run(None, feed)[0], dtype=np.float32)
