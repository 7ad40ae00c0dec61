"""The exported towers: ONNX graphs that encode. The one module that imports onnxruntime.

One thread per session: a query takes microseconds, spinning threads would cost more.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# read when the library is loaded, so before that; 0 lets it tell its maker
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from index.arrays import Floats, Rows

USER_INPUTS = ("history_vectors", "mask")
MODALITY_PREFIX = "modality_"


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph on one CPU thread.

    Raises an error of onnxruntime's own if the file is not a graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class UserEncoder:
    """The user tower: a query vector from a history of item vectors.

    Attributes:
        width: Of item vectors and of queries.
        max_length: How many of a history's newest items it reads.
    """

    def __init__(self, path: Path, max_length: int) -> None:
        self._session = open_session(path)
        names = [one.name for one in self._session.get_inputs()]
        if names != list(USER_INPUTS):
            raise ValueError(f"inputs are {names}, expected {list(USER_INPUTS)}")
        self.max_length = max_length
        self.width = int(self._session.get_outputs()[0].shape[-1])

    def encode(self, history_vectors: Floats, mask: NDArray[np.bool_]) -> Floats:
        """Encode a padded batch.

        Args:
            history_vectors: [batch, length, dim] newest at position 0, padded on the right.
            mask: [batch, length] True where there is an item.

        Returns:
            [batch, dim], unit norm.
        """
        feed = {"history_vectors": history_vectors, "mask": mask}
        return np.asarray(self._session.run(None, feed)[0], dtype=np.float32)

    def encode_histories(self, vectors: Floats, histories: Sequence[Rows]) -> Floats:
        """Encode histories of item rows, oldest first; the newest `max_length` are read.

        Args:
            vectors: [items, dim] item vectors.
            histories: One array of rows per user, none empty.

        Returns:
            [len(histories), dim], unit norm.
        """
        newest_first = [history[::-1][: self.max_length] for history in histories]
        rows, mask = padded(newest_first)
        return self.encode(vectors.take(rows, axis=0), mask)


def padded(arrays: Sequence[Rows]) -> tuple[Rows, NDArray[np.bool_]]:
    """Stack arrays of unequal length, filled on the right with row 0, which the mask hides."""
    if len(arrays) == 1:
        return arrays[0][np.newaxis], np.ones((1, len(arrays[0])), dtype=np.bool_)
    lengths = np.array([len(one) for one in arrays])
    mask: NDArray[np.bool_] = np.arange(lengths.max()) < lengths[:, np.newaxis]
    rows = np.zeros(mask.shape, dtype=np.int32)
    rows[mask] = np.concatenate(arrays)
    return rows, mask


class ItemEncoder:
    """The item tower's content path: the vector of an item that training has never seen.

    Attributes:
        widths: modality -> numbers per raw row, in the order of the graph.
        width: Of item vectors.
    """

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        self.widths = {
            one.name.removeprefix(MODALITY_PREFIX): int(one.shape[-1])
            for one in self._session.get_inputs()
            if one.name.startswith(MODALITY_PREFIX)
        }
        self.modalities = list(self.widths)
        self.width = int(self._session.get_outputs()[0].shape[-1])

    def encode(self, features: Mapping[str, Floats], count: int) -> Floats:
        """Encode new items from their raw features.

        Args:
            features: name -> [count, width of that modality]; a row of NaN or of zeros, or a
                modality left out, counts as missing.
            count: Number of items.

        Returns:
            [count, dim], unit norm.

        Raises:
            ValueError: A modality is not one that the tower knows.
        """
        unknown = sorted(set(features) - set(self.modalities))
        if unknown:
            raise ValueError(f"unknown modalities {unknown}; the tower knows {self.modalities}")
        feed: dict[str, NDArray[np.generic]] = {}
        presence = np.zeros((count, max(1, len(self.modalities))), dtype=np.bool_)
        for place, (name, width) in enumerate(self.widths.items()):
            rows = features.get(name, np.full((count, width), np.nan, dtype=np.float32))
            filled = np.nan_to_num(rows).astype(np.float32, copy=False)
            presence[:, place] = filled.any(axis=1)
            feed[MODALITY_PREFIX + name] = filled
        feed["presence"] = presence
        return np.asarray(self._session.run(None, feed)[0], dtype=np.float32)
