"""Bundles published at planned times, valid or corrupt."""

from datetime import timedelta

from index.bundle.registry import BundleRegistry
from tests.support.synthetic_bundle import NOW, publish_handmade


def day(count):
    """Return a publishing time so many days after the first one."""
    return NOW + timedelta(days=count)


def flip_byte(path):
    """Invert the last byte of a file; a second call restores it."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


def publish_corrupt(bundles, now, name="item_vectors.npy"):
    """Publish a bundle with a flipped byte in one move; return the previous and the new version."""
    before = BundleRegistry(bundles).pointer()
    with BundleRegistry(bundles).stage() as staged:
        version = publish_handmade(staged, now=now)
        flip_byte(staged / version / name)
        (staged / version).rename(bundles / version)
    BundleRegistry(bundles).make_current(version)
    return before.version if before else None, version
