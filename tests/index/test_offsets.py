import hashlib
import json

import numpy as np
import pytest

from index.bundle.reader import open_bundle
from index.errors import InvalidBundleError


def update_digest(folder, name):
    """Write the digest of a file into the manifest, so that only its content is invalid."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    content = (folder / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"size_bytes": len(content), "sha256": digest}
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("histories.offsets.npy", "histories cover their rows"),
        ("item_ids.offsets.npy", "item_ids.offsets cover the blob"),
        ("filters.offsets.npy", "filters cover their rows"),
    ],
)
def test_open_bundle_decreasing_offsets_raises(bundle_copy, name, message):
    offsets = np.load(bundle_copy / name)
    offsets[1], offsets[2] = offsets[2] + 1, offsets[1]
    assert (np.diff(offsets) < 0).any()
    np.save(bundle_copy / name, offsets)
    update_digest(bundle_copy, name)
    with pytest.raises(InvalidBundleError, match=message):
        open_bundle(bundle_copy)
