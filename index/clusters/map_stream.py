"""A cluster map as pieces of bytes, to be carried through a store that bounds its values.

Each of the four arrays is cut, little-endian, into pieces of half a MiB (64k items of eight
bytes); pieces are numbered through. What else a reader must know stands in `StoredMap`.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from index.cluster_map import ARRAYS, KINDS, ClusterMap
from index.clusters.files import ClusterMapCard, card_of
from index.errors import FaultyClusterMapError
from index.fsio import Closed

PIECE_BYTES = 1 << 19
MOST = 1 << 31  # of anything counted
MOST_PIECES = 1 << 16  # 32 GiB, so that a wrong number cannot ask for a huge array

Bytes = NDArray[np.uint8]


class StoredMap(Closed):
    """What stands beside the pieces of a map."""

    card: ClusterMapCard
    width: int = Field(ge=1, le=MOST, description="numbers per centroid")
    piece_count: int = Field(ge=1, le=MOST_PIECES)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of all pieces, in order")
    stored_at: float = Field(description="unix seconds")


def describe(found: ClusterMap, now_s: float) -> StoredMap:
    """Describe a map that is about to be stored."""
    pieces = pieces_of(found)
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return StoredMap(
        card=card_of(found),
        width=found.centroids.shape[1],
        piece_count=len(pieces),
        sha256=digest.hexdigest(),
        stored_at=now_s,
    )


def pieces_of(found: ClusterMap) -> list[memoryview]:
    """Cut a map into its pieces."""
    return [
        piece.data
        for name in ARRAYS
        for piece in _cut(_little_endian(getattr(found, name), KINDS[name][0]))
    ]


def assemble(about: StoredMap, pieces: Iterable[bytes | None], place: str) -> ClusterMap:
    """Put a map together again; None stands for a piece that is not there.

    Raises FaultyClusterMapError with every fault: a piece missing or of a wrong length, bytes
    that do not have the digest, arrays that are not the map of the card.
    """
    arrays = _room_for(about, place)
    spaces = [space for name in ARRAYS for space in _cut(arrays[name])]
    if faults := _fill(spaces, pieces, about.sha256):
        raise FaultyClusterMapError(place, faults)
    try:
        found = _map_of(arrays, about)
    except ValueError as error:
        raise FaultyClusterMapError(place, [f"{error}; publish the map anew"]) from error
    if card_of(found) != about.card:
        told = f"holds the map {found.version}, expected {about.card.version}"
        raise FaultyClusterMapError(place, [f"{told} as described; publish the map anew"])
    return found


def _room_for(about: StoredMap, place: str) -> dict[str, Bytes]:
    """Return arrays to be filled; nothing is allocated for a description that is absurd."""
    sizes = _sizes(about)
    count = sum(-(-size // PIECE_BYTES) for size in sizes.values())
    if count != about.piece_count:
        told = f"the description tells of {about.piece_count} pieces, its sizes of {count}"
        raise FaultyClusterMapError(place, [f"{told}; publish the map anew"])
    try:
        return {name: np.empty(size, dtype=np.uint8) for name, size in sizes.items()}
    except MemoryError as error:
        told = f"takes {sum(sizes.values()):,} bytes, expected what memory has room for"
        raise FaultyClusterMapError(place, [f"{told}; publish a smaller map"]) from error


def _fill(spaces: list[Bytes], pieces: Iterable[bytes | None], sha256: str) -> list[str]:
    """Copy pieces to their spaces; return what is wrong with them."""
    faults = []
    digest = hashlib.sha256()
    for number, (space, piece) in enumerate(zip(spaces, pieces, strict=True)):
        if piece is None or len(piece) != len(space):
            what = "is missing" if piece is None else f"has {len(piece):,} bytes"
            faults.append(f"piece {number} {what}, expected {len(space):,}; publish it anew")
        else:
            space[:] = np.frombuffer(piece, dtype=np.uint8)
            digest.update(piece)
    if not faults and digest.hexdigest() != sha256:
        told = f"the pieces have sha256 {digest.hexdigest()[:16]}..., expected {sha256[:16]}..."
        faults.append(f"{told}; they were changed: publish the map anew")
    return faults


def _map_of(arrays: dict[str, Bytes], about: StoredMap) -> ClusterMap:
    return ClusterMap(
        codes1=arrays["codes1"].view("<i4"),
        codes2=arrays["codes2"].view("<i4"),
        centroids=arrays["centroids"].view("<f4").reshape(-1, about.width),
        id_hashes=arrays["id_hashes"].view("<u8"),
        temperature_share=about.card.temperature_share,
        made=dict(about.card.made),
    )


def _sizes(about: StoredMap) -> dict[str, int]:
    """Return how many bytes each array has."""
    counts = dict.fromkeys(ARRAYS, about.card.items)
    counts["centroids"] = about.card.level_1_codes * about.width
    return {name: counts[name] * np.dtype(KINDS[name][0]).itemsize for name in ARRAYS}


def _little_endian(array: NDArray[np.generic], kind: str) -> Bytes:
    """Return an array's bytes, flat; no copy where they lie in memory as they are wanted."""
    dtype = np.dtype(kind).newbyteorder("<")
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)


def _cut(array: Bytes) -> list[Bytes]:
    return [array[start : start + PIECE_BYTES] for start in range(0, len(array), PIECE_BYTES)]
