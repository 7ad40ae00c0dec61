"""Ways to spoil a bundle at random: bytes, files, names, arrays, the manifest."""

import json
import os
import shutil
from pathlib import Path

import numpy as np

from index.bundle.manifest import MANIFEST, facts_of, version_of
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
    """One spoilt bundle."""

    def __init__(self, source: Path, target: Path, number: int, kind: str) -> None:
        self.rng = np.random.default_rng([number, kind == "foreign"])
        shutil.rmtree(target, ignore_errors=True)
        self.source, self.folder = source, target / version_of(source / "one", NOW)
        self.folder.mkdir(parents=True)
        for path in (source / "one").iterdir():
            os.link(path, self.folder / path.name)
        self.is_anew = kind == "foreign" or bool(self.rng.integers(2))
        self.names = [name for name in names_of(self.folder) if self.may_spoil(name, kind)]
        ways = OF_FILES if kind == "foreign" else [*OF_FILES, odd_array, *OF_MANIFESTS]
        way = ways[self.rng.integers(len(ways))]
        self.told = f"{way.__name__}{' anew' if self.is_anew else ''}"
        way(self)
        if self.is_anew:
            if way not in OF_MANIFESTS:
                self.renew()
            self.folder = self.folder.rename(target / "not a version")

    def may_spoil(self, name: str, kind: str) -> bool:
        """Foreign readers get spoilt files only where these are what is tried."""
        return name in FOREIGN if kind == "foreign" else not (self.is_anew and name in FOREIGN)

    def name(self) -> str:
        return self.names[self.rng.integers(len(self.names))]

    def write(self, name: str, content: bytes) -> None:
        """Write a file anew: its bytes are another bundle's, too."""
        self.told += f" {name}"
        (self.folder / name).unlink()
        (self.folder / name).write_bytes(content)

    def manifest(self) -> dict:
        return json.loads((self.folder / MANIFEST).read_text())

    def write_manifest(self, manifest: dict) -> None:
        (self.folder / MANIFEST).unlink()
        (self.folder / MANIFEST).write_text(json.dumps(manifest))

    def renew(self) -> None:
        """Make the digests anew, so that what comes after them is reached."""
        manifest = self.manifest()
        if not isinstance(manifest.get("files"), dict):
            return
        if all(path.is_file() for path in self.folder.iterdir()):
            facts = facts_of(self.folder)
            manifest["files"] = {name: one.model_dump() for name, one in facts.items()}
        self.write_manifest(manifest)


def flip(case: Case) -> None:
    name = case.name()
    content = bytearray((case.folder / name).read_bytes())
    for _ in range(int(case.rng.integers(1, 9)) if content else 0):
        content[case.rng.integers(len(content))] ^= int(case.rng.integers(1, 256))
    case.write(name, bytes(content))


def cut(case: Case) -> None:
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
    """Put a link, a folder or nothing in a file's place."""
    name = case.name()
    case.told += f" {name}"
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
    case.told += f" {name}"
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
    """Put an odd value somewhere, take a key away, or add one."""
    manifest = case.manifest()
    for _ in range(case.rng.integers(1, 3)):
        place, key = somewhere(case, manifest)
        if place is None:
            continue
        case.told += f" {key}"
        way = case.rng.integers(8)
        if way == 0 and isinstance(place, dict):
            place.pop(key)
        elif way == 1 and isinstance(place, dict):
            place[str(ODD[case.rng.integers(len(ODD))])[:30]] = place[key]
        else:
            place[key] = ODD[case.rng.integers(len(ODD))]
    case.write_manifest(manifest)


def somewhere(case: Case, node: dict):
    """Choose a place in a manifest at random, and a key of it."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return None, None
        key = keys[case.rng.integers(len(keys))]
        if not isinstance(node[key], dict | list) or case.rng.integers(3) == 0:
            return node, key
        node = node[key]


def odd_names(case: Case) -> None:
    """Name files elsewhere."""
    manifest = case.manifest()
    name = NAMES[case.rng.integers(len(NAMES))]
    own = case.name()
    case.told += f" {name!r}"
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


OF_FILES = (flip, cut, lengthen, swap, replace)
OF_MANIFESTS = (odd_manifest, odd_names, flip_manifest)
