"""Arrays in files: written in chunks, or unnamed."""

import numpy as np
import pytest

from index.arrays import open_array, save_rows, scratch_zeros


def test_save_rows_joins_chunks(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    saved = save_rows(tmp_path / "rows.npy", rows.shape, [rows[:4], rows[4:]])
    assert np.array_equal(saved, rows)
    assert np.array_equal(open_array(tmp_path / "rows.npy", "float32", 2), rows)


def test_save_rows_of_too_few_rows_raises(tmp_path):
    rows = np.zeros((3, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="mmap length is greater than file size"):
        save_rows(tmp_path / "rows.npy", (4, 2), [rows])


@pytest.mark.parametrize("shape", [(5, 3), (0, 3), (5, 0)])
def test_scratch_zeros_can_be_written(shape):
    rows = scratch_zeros(shape)
    assert rows.shape == shape
    assert not rows.any()
    rows[:] = 2
    assert rows.sum() == 2 * rows.size


def test_scratch_zeros_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = scratch_zeros((5, 3))
    assert isinstance(rows, np.memmap)
    assert not list(tmp_path.iterdir())
