"""Files that change while they are read: their parts may not match, so the run stops."""

import itertools
import os
import threading

import numpy as np
import pytest

from index.errors import DatasetError
from index.ingest.changes import detect_changes
from index.ingest.tables import Findings
from tests.support.training_shops import VISUAL, write_shop
from trainer.data.dataset import load_dataset


def changes_in(folder, change):
    findings = Findings()
    with detect_changes(folder, findings):
        change()
    return findings.faults


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: os.utime(folder / "features_visual.npy", (1, 1)),
        lambda folder: np.save(folder / "features_visual.npy", VISUAL[:3]),
        lambda folder: (folder / "features_visual.npy").unlink(),
    ],
)
def test_detect_changes_reports_a_changed_file(tmp_path, change):
    write_shop(tmp_path)
    (fault,) = changes_in(tmp_path, lambda: change(tmp_path))
    assert fault.startswith("features_visual.npy: changed while the folder was read")


def test_detect_changes_ignores_other_files(tmp_path):
    write_shop(tmp_path)
    assert changes_in(tmp_path, (tmp_path / "README.md").touch) == []


def test_dataset_changed_while_read_is_rejected(tmp_path):
    shop, is_read = write_shop(tmp_path), threading.Event()

    def change():
        for time_ns in itertools.count():
            os.utime(shop / "items.parquet", ns=(time_ns, time_ns))
            if is_read.is_set():
                return

    writer = threading.Thread(target=change)
    writer.start()
    try:
        with pytest.raises(DatasetError) as caught:
            load_dataset(shop)
    finally:
        is_read.set()
        writer.join()
    (fault,) = caught.value.faults
    assert fault.startswith("items.parquet: changed while the folder was read")
