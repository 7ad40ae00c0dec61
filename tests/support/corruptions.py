"""Random corruptions of a bundle: bytes, files, names, arrays and the manifest."""

import json
import os
import shutil
from pathlib import Path

import numpy as np

from index.bundle.manifest import MANIFEST, measure_files, version_of
from tests.support.synthetic_bundle import NOW

FOREIGN = ("items.faiss", "user_encoder.onnx", "item_encoder.onnx")
ODD = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, -0.5, 1e308, "", "x", "../x", "\x00", "\ud800",
    [], {}, [[]], [{}], {"": {}}, "9" * 5_000, [None], {"a": -1}, [{"version": []}],
]  # fmt: skip
NAMES = [
    "../secret.npy", "/etc/hostname", "..", "a/../../secret.npy", "./items.faiss", "item_ids",
    "x" * 100 + ".npy", "items.faiss\x00.npy", "ITEMS.FAISS", "manifest.json", "más.npy", "",
]  # fmt: skip


class Case:
    """A corrupt bundle."""

    def __init__(self, source: Path, target: Path, number: int, kind: str) -> None:
        self.rng = np.random.default_rng([number, kind == "foreign"])
        shutil.rmtree(target, ignore_errors=True)
        self.source, self.folder = source, target / version_of(source / "one", NOW)
        self.folder.mkdir(parents=True)
        for path in (source / "one").iterdir():
            os.link(path, self.folder / path.name)
        self.has_new_digests = kind == "foreign" or bool(self.rng.integers(2))
        self.names = [name for name in names_of(self.folder) if self.may_corrupt(name, kind)]
        ways = OF_FILES if kind == "foreign" else [*OF_FILES, odd_array, *OF_MANIFESTS]
        way = ways[self.rng.integers(len(ways))]
        self.description = f"{way.__name__}{' with new digests' if self.has_new_digests else ''}"
        way(self)
        if self.has_new_digests:
            if way not in OF_MANIFESTS:
                self.update_digests()
            self.folder = self.folder.rename(target / "not a version")

    def may_corrupt(self, name: str, kind: str) -> bool:
        """Whether to corrupt a file; FAISS and ONNX files only for kind `foreign`."""
        return (
            name in FOREIGN if kind == "foreign" else not (self.has_new_digests and name in FOREIGN)
        )

    def name(self) -> str:
        return self.names[self.rng.integers(len(self.names))]

    def write(self, name: str, content: bytes) -> None:
        """Replace a file instead of changing it: it is a hard link into the source bundle."""
        self.description += f" {name}"
        (self.folder / name).unlink()
        (self.folder / name).write_bytes(content)

    def manifest(self) -> dict:
        return json.loads((self.folder / MANIFEST).read_text())

    def write_manifest(self, manifest: dict) -> None:
        (self.folder / MANIFEST).unlink()
        (self.folder / MANIFEST).write_text(json.dumps(manifest))

    def update_digests(self) -> None:
        """Update the digests in the manifest, so that later checks are reached."""
        manifest = self.manifest()
        if not isinstance(manifest.get("files"), dict):
            return
        if all(path.is_file() for path in self.folder.iterdir()):
            facts = measure_files(self.folder)
            manifest["files"] = {name: info.model_dump() for name, info in facts.items()}
        self.write_manifest(manifest)


def flip(case: Case) -> None:
    name = case.name()
    content = bytearray((case.folder / name).read_bytes())
    for _ in range(int(case.rng.integers(1, 9)) if content else 0):
        content[case.rng.integers(len(content))] ^= int(case.rng.integers(1, 256))
    case.write(name, bytes(content))


def truncate(case: Case) -> None:
    name = case.name()
    content = (case.folder / name).read_bytes()
    case.write(name, content[: case.rng.integers(max(1, len(content)))])


def lengthen(case: Case) -> None:
    name = case.name()
    more = case.rng.bytes(int(case.rng.integers(1, 200)))
    case.write(name, (case.folder / name).read_bytes() + more)


def swap(case: Case) -> None:
    for name in case.rng.choice(case.names, case.rng.integers(1, 4)):
        case.write(name, (case.source / "two" / name).read_bytes())


def replace(case: Case) -> None:
    """Replace a file by a link or a folder, or delete it."""
    name = case.name()
    case.description += f" {name}"
    (case.folder / name).unlink()
    way = case.rng.integers(4)
    if way == 0:
        (case.folder / name).symlink_to(case.source / "one" / name)
    elif way == 1:
        (case.folder / name).symlink_to(case.source / "secret.npy")
    elif way == 2:
        (case.folder / name).mkdir()


def odd_array(case: Case) -> None:
    """Change the values, the type or the shape of an array."""
    arrays = [name for name in case.names if name.endswith(".npy")]
    name = arrays[case.rng.integers(len(arrays))]
    array = np.load(case.folder / name).copy()
    case.description += f" {name}"
    way = case.rng.integers(4)
    if way == 0 and array.size:
        kind = np.iinfo(array.dtype) if array.dtype.kind in "iu" else None
        values = [kind.min, kind.max, 0, 1] if kind else [np.nan, np.inf, -np.inf, 1e38, 0.0]
        for _ in range(case.rng.integers(1, 4)):
            array.flat[case.rng.integers(array.size)] = values[case.rng.integers(len(values))]
    elif way == 1:
        kinds = ["<i8", ">i8", "<f8", "|b1", "<u2", "<U3", "<f4", "<i4", "|u1"]
        array = array.astype(kinds[case.rng.integers(len(kinds))])
    elif way == 2:
        shapes = [(-1, 1), (1, -1), (-1,), (1, 1, -1)]
        array = array.reshape(shapes[case.rng.integers(len(shapes))])
    else:
        array = np.resize(array, (max(0, array.size + int(case.rng.integers(-3, 4))),))
    (case.folder / name).unlink()
    np.save(case.folder / name, array)


def odd_manifest(case: Case) -> None:
    """Set a random key of the manifest to an odd value, or remove or add a key."""
    manifest = case.manifest()
    for _ in range(case.rng.integers(1, 3)):
        container, key = random_container(case, manifest)
        if container is None:
            continue
        case.description += f" {key}"
        way = case.rng.integers(8)
        if way == 0 and isinstance(container, dict):
            container.pop(key)
        elif way == 1 and isinstance(container, dict):
            container[str(ODD[case.rng.integers(len(ODD))])[:30]] = container[key]
        else:
            container[key] = ODD[case.rng.integers(len(ODD))]
    case.write_manifest(manifest)


def random_container(case: Case, node: dict):
    """Choose a random container in a manifest, and a key of it."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return None, None
        key = keys[case.rng.integers(len(keys))]
        if not isinstance(node[key], dict | list) or case.rng.integers(3) == 0:
            return node, key
        node = node[key]


def odd_names(case: Case) -> None:
    """Rename files in the manifest."""
    manifest = case.manifest()
    name = NAMES[case.rng.integers(len(NAMES))]
    own = case.name()
    case.description += f" {name!r}"
    if case.rng.integers(2):
        manifest["files"][name] = manifest["files"].pop(own)
    else:
        manifest["files"][name] = manifest["files"][own]
    case.write_manifest(manifest)


def flip_manifest(case: Case) -> None:
    content = bytearray((case.folder / MANIFEST).read_bytes())
    if case.rng.integers(3) == 0:
        content = content[: case.rng.integers(len(content))]
    for _ in range(case.rng.integers(1, 4)):
        if content:
            content[case.rng.integers(len(content))] ^= int(case.rng.integers(1, 256))
    case.write(MANIFEST, bytes(content))


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)


OF_FILES = (flip, truncate, lengthen, swap, replace)
OF_MANIFESTS = (odd_manifest, odd_names, flip_manifest)
