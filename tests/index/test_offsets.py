import hashlib
import json

import numpy as np
import pytest

from index.bundle.reader import open_bundle
from index.errors import InvalidBundleError


def sign_again(folder, name):
    """Write the digest of a file into the manifest: only its content is at fault."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    content = (folder / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"size_bytes": len(content), "sha256": digest}
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("histories.offsets.npy", "histories cover their rows"),
        ("item_ids.offsets.npy", "item_ids.offsets cover the blob"),
        ("filters.offsets.npy", "filters cover their rows"),
    ],
)
def test_a_bundle_whose_offsets_fall_is_refused(copied, name, told):
    offsets = np.load(copied / name)
    offsets[1], offsets[2] = offsets[2] + 1, offsets[1]
    assert (np.diff(offsets) < 0).any()
    np.save(copied / name, offsets)
    sign_again(copied, name)
    with pytest.raises(InvalidBundleError, match=told):
        open_bundle(copied)
