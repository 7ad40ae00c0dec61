"""The name that a bundle is published under: when, and how its manifest's digest begins."""

import re
from datetime import UTC, datetime
from pathlib import Path

from index.bundle.manifest import MANIFEST
from index.fsio import sha256_of

VERSION_PATTERN = r"^\d{8}T\d{6}Z-[0-9a-f]{4}$"
DIGITS = 4


def version_of(staged: Path, now: datetime) -> str:
    """Name a bundle that is ready to be published."""
    digest = sha256_of(staged / MANIFEST)
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest[:DIGITS]}"


def misnamed(folder: Path) -> list[str]:
    """Hold a manifest, which has no digest elsewhere, against the name of its folder.

    A folder of another kind of name, as while it is written, tells nothing.
    """
    digits = sha256_of(folder / MANIFEST)[:DIGITS]
    if not re.match(VERSION_PATTERN, folder.name) or folder.name.endswith(f"-{digits}"):
        return []
    return [
        f"{MANIFEST}: its digest begins with {digits}, the folder is {folder.name}: it was "
        "changed since it was published; publish again"
    ]
