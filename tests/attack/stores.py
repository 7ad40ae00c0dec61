"""Hostile and broken files in the folder of bundles; the live bundle must stay."""

import json
import os
import shutil
import signal
import time
from contextlib import contextmanager

from tests.support.http_caller import until

POLLS_S = 0.3  # a few polls of the service


@contextmanager
def replaced(path):
    """Remove a file for a while; whatever is in its place is removed at the end."""
    backup = path.with_name(f"{path.name}-backup")
    if path.exists():
        path.rename(backup)
    try:
        yield path
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if backup.exists():
            backup.rename(path)


def special_files(target, name):
    """Put a FIFO, a device, a sparse file, a folder and a dead link in place of a file."""
    for make in (
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("/dev/stdin"),
        lambda path: path.symlink_to(path),
        lambda path: path.mkdir(),
        make_sparse,
        lambda path: path.touch(mode=0),
    ):
        with replaced(target.folder / name) as path:
            make(path)
            target.process.send_signal(signal.SIGHUP)
            time.sleep(POLLS_S)
            target.get("/readyz")
    until(lambda: json.loads(target.get("/readyz"))["status"] == "ready", limit_s=30)


def make_sparse(path):
    with path.open("wb") as stream:
        stream.truncate(1 << 42)


def special_pointer(target):
    """Special files in place of the current pointer."""
    special_files(target, "current")


def special_denylist(target):
    """Special files in place of the denylist."""
    special_files(target, "denylist")


def hostile_pointers(target):
    """Pointers with huge numbers, foreign paths, repeated keys and deep nesting."""
    version = json.loads((target.folder / "current").read_text())["version"]
    for text in (
        json.dumps({"sequence": 1 << 64, "version": version, "previous": None}),
        json.dumps({"sequence": -1, "version": version, "previous": None}),
        json.dumps({"sequence": 1, "version": "../../etc", "previous": None}),
        json.dumps({"sequence": 1, "version": version + "/../x", "previous": None}),
        f'{{"sequence": 1, "sequence": 2, "version": "{version}", "previous": null}}',
        '{"sequence": 1e400}',
        "[" * 100_000,
        "{" * 100_000,
        "\0" * 1_000,
        "9" * 5_000,
    ):
        with replaced(target.folder / "current") as path:
            path.write_text(text)
            target.process.send_signal(signal.SIGHUP)
            time.sleep(POLLS_S)
            assert "bundle" in json.loads(target.get("/readyz"))
    until(lambda: json.loads(target.get("/readyz"))["status"] == "ready", limit_s=30)


def hostile_denylists(target):
    """Denylists with huge sequences, foreign types and a million ids."""
    for content in (
        {"sequence": 1 << 64, "ids": []},
        {"sequence": 1, "ids": [1, None, {}]},
        {"sequence": 1, "ids": ["x" * 100_000]},
        {"sequence": 1, "ids": [f"x{row}" for row in range(1_000_000)]},
        [],
    ):
        with replaced(target.folder / "denylist") as path:
            path.write_text(json.dumps(content))
            time.sleep(POLLS_S)
            target.get("/readyz")


def vanishing_folder(target):
    """The folder of bundles vanishes and comes back."""
    moved = target.folder.with_name("moved")
    for _ in range(3):
        target.folder.rename(moved)
        time.sleep(POLLS_S)
        moved.rename(target.folder)
        time.sleep(POLLS_S)
    until(lambda: json.loads(target.get("/readyz"))["status"] == "ready", limit_s=30)


def damaged_bundles(target):
    """Bundles with one damaged file each become current; the service keeps the live one."""
    pointer = json.loads((target.folder / "current").read_text())
    source = target.folder / pointer["version"]
    for file in sorted(path.name for path in source.iterdir()):
        version = pointer["version"][:-1] + "0"
        copy = target.folder / version
        shutil.copytree(source, copy, dirs_exist_ok=True)
        (copy / file).write_bytes(b"\xff" * 1_000)
        with replaced(target.folder / "current") as path:
            path.write_text(json.dumps({**pointer, "version": version}))
            target.process.send_signal(signal.SIGHUP)
            time.sleep(POLLS_S)
            assert json.loads(target.get("/readyz"))["bundle"] == pointer["version"]
        shutil.rmtree(copy)
