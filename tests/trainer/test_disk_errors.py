"""Disk errors: full disk, file size limit, uncreatable folder."""

import os
import resource
import subprocess
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from index.ann.index import ItemIndex
from index.bundle.registry import BundleRegistry
from tests.support.synthetic_bundle import publish_handmade
from tests.support.training_runs import arguments, run, start_trainer, write_config
from trainer.checkpoint import Checkpoint, Progress

LARGEST_FILE_BYTES = 20_000


@pytest.fixture
def small_disk(tmp_path):
    """Mounter of a disk of a size in kB; skips the test if mounting is not permitted."""
    mounted = []

    def mount(size_kb):
        folder = tmp_path / f"disk-{size_kb}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(folder)]
        if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs root and the right to mount")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_run_reports_uncreatable_bundle_folder(world, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    config = write_config(tmp_path / "run.toml", {"training": {"epochs": 1}})
    assert run(world, tmp_path / "taken", config) == 1
    output = capsys.readouterr().err.splitlines()[-1]
    assert str(tmp_path / "taken") in output
    assert "choose another folder" in output


def test_file_size_limit_stops_run_without_publishing(world, tmp_path):
    config = write_config(tmp_path / "run.toml", {"training": {"epochs": 1}})
    bundles = tmp_path / "bundles"
    version = publish_handmade(bundles)
    with start_trainer(*arguments(world, bundles, config)) as process:
        limits = (LARGEST_FILE_BYTES, LARGEST_FILE_BYTES)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
        output, _ = process.communicate()
    assert process.returncode == 1, output
    assert "cannot be written" in output
    assert "the current bundle is unchanged" in output
    assert "Traceback" not in output
    assert BundleRegistry(bundles).versions() == [version]
    assert list(bundles.glob(".checkpoints/*")) == []


@pytest.mark.parametrize("size_kb", [220, 340])
def test_full_disk_keeps_the_current_bundle(small_disk, world, tmp_path, capsys, size_kb):
    config = write_config(tmp_path / "run.toml", {"training": {"epochs": 1}})
    disk = small_disk(size_kb)
    version = publish_handmade(disk)
    assert run(world, disk, config) == 1
    output = capsys.readouterr().err
    assert "Traceback" not in output
    assert f"{disk}: the command failed with an I/O error" in output
    assert "check free space" in output
    assert BundleRegistry(disk).versions() == [version]
    assert BundleRegistry(disk).pointer().version == version
    assert list(disk.glob(".staging-*")) == []


def test_item_index_save_on_full_disk_raises_os_error():
    index = faiss.IndexFlatIP(64)
    index.add(np.zeros((4_000, 64), np.float32))
    with pytest.raises(OSError, match=r"/dev/full: cannot be written"):
        ItemIndex(index).save(Path("/dev/full"))


def test_checkpoint_save_on_full_disk_keeps_previous(small_disk):
    checkpoint = Checkpoint(small_disk(100) / "run.safetensors", "this run")
    checkpoint.save({"current": {"a": torch.zeros(1_000)}}, Progress(step=1))
    with pytest.raises(OSError, match=r"run\.safetensors: cannot be written.*No space left"):
        checkpoint.save({"current": {"a": torch.zeros(100_000)}}, Progress(step=2))
    assert checkpoint.load()[1].step == 1
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["run.safetensors"]
