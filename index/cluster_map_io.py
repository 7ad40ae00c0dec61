"""Cluster maps in files and blobs, and joined by id hash with the items of a catalogue.

Nothing in them is run, and what was changed since is not opened. In a bundle a map is
`cluster_map.json` and an array per file; in a store it is one blob, each array little-endian.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from index.arrays import Hashes, open_array
from index.cluster_map import ARRAYS, KINDS, ClusterMap
from index.errors import IncompatibleClusterMapError, InvalidClusterMapError
from index.fsio import FrozenModel, faults_of, write_json
from index.storage.protocols import CHUNK_BYTES, VERSION_PATTERN, Blob, Buffer, StoredBlob, split

CARD = "cluster_map.json"
MIN_OVERLAP = 0.95
MAX_COUNT = 1 << 31  # of anything counted

Count = Annotated[int, Field(ge=1)]


class ClusterMapCard(FrozenModel):
    """What a map says of itself, beside its arrays."""

    format: Literal[1] = 1
    version: str = Field(pattern=VERSION_PATTERN)
    items: Count
    level_1_codes: Count
    level_2_codes: Count
    temperature_share: float = Field(gt=0)
    made: dict[str, Any]


def card_of(found: ClusterMap) -> ClusterMapCard:
    """Describe a map in a few numbers."""
    return ClusterMapCard(
        version=found.version,
        items=len(found),
        level_1_codes=len(found.centroids),
        level_2_codes=found.cell_width,
        temperature_share=found.temperature_share,
        made=found.made,
    )


def save_cluster_map(found: ClusterMap, folder: Path) -> None:
    """Write `cluster_map.*.npy`, then `cluster_map.json`, without which it is no map."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)  # half a new map beside an old card is no map
    for name in ARRAYS:
        np.save(folder / f"cluster_map.{name}.npy", getattr(found, name), allow_pickle=False)
    write_json(folder / CARD, card_of(found).model_dump(mode="json"))


def open_cluster_map(folder: Path) -> ClusterMap:
    """Open a saved map, its arrays memory-mapped, and check it against its card.

    Raises InvalidClusterMapError with every fault found.
    """
    faults: list[str] = []
    card = _read_card(folder, faults)
    arrays = {}
    for name, (dtype, ndim) in KINDS.items():
        try:
            arrays[name] = open_array(folder / f"cluster_map.{name}.npy", dtype, ndim)
        except (OSError, ValueError, EOFError) as error:
            said = " ".join(str(error).split())
            faults.append(f"cluster_map.{name}.npy: cannot be read ({said}); save the map anew")
    if faults or card is None:
        raise InvalidClusterMapError(str(folder), faults)
    return _checked(arrays, card, str(folder), f"{CARD} tells of", "save the map anew")


def join(found: ClusterMap, id_hashes: Hashes) -> ClusterMap:
    """Carry a map over to other items, by id hash: any subset, any order, new ones too.

    id_hashes  [items]  of the other catalogue, in its row order
    returns    a map of those items. Sizes are theirs; clusters may be left without items. An
               item that the map does not know joins all others like it in a cluster of their
               own at the origin, the middle of the catalogue (ours): it is drawn as an easy
               negative, and is never a hard one.

    Raises InvalidClusterMapError if two items of the map share a hash.
    """
    places, is_known = find_hashes(found, id_hashes)
    centroids = found.centroids
    if not is_known.all():
        origin = np.zeros((1, centroids.shape[1]), dtype=np.float32)
        centroids = np.concatenate([centroids, origin])
    unknown = int((~is_known).sum())
    return replace(
        found,
        codes1=np.where(is_known, found.codes1[places], len(found.centroids)).astype(np.int32),
        codes2=np.where(is_known, found.codes2[places], 0).astype(np.int32),
        centroids=centroids,
        id_hashes=id_hashes,
        made=found.made | {"joined_from": found.version, "unknown_items": unknown},
    )


def join_matching(found: ClusterMap, id_hashes: Hashes) -> ClusterMap:
    """Carry a map over to other items, as `join`, unless it is of another catalogue.

    What is shared is measured against the smaller of the two: a catalogue that grew holds all
    items of the map, of one that shrank the map holds all items.

    Raises IncompatibleClusterMapError below 95 %, InvalidClusterMapError as `join`.
    """
    carried = join(found, id_hashes)
    shared = len(id_hashes) - carried.made["unknown_items"]
    smaller = min(len(found), len(id_hashes))
    if shared < MIN_OVERLAP * smaller:
        raise IncompatibleClusterMapError(
            f"cluster map {found.version}: shares {shared:,} items with the {len(id_hashes):,} "
            f"known here, expected {MIN_OVERLAP:.0%} of {smaller:,}, the smaller of the two; "
            "publish a map made of this catalogue, or use another namespace for each"
        )
    return carried


def find_hashes(
    found: ClusterMap, id_hashes: Hashes
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return each hash's row in the map (any row where it has none), and whether it has one.

    Raises InvalidClusterMapError if two items of the map share a hash.
    """
    order = np.argsort(found.id_hashes, kind="stable")
    ascending = found.id_hashes[order]
    twins = np.flatnonzero(ascending[1:] == ascending[:-1])
    if len(twins):
        first, second = order[twins[0]], order[twins[0] + 1]
        fault = f"rows {first} and {second} share an id hash, expected distinct ones"
        remedy = "rename one of the two items and make the map anew"
        raise InvalidClusterMapError(f"cluster map {found.version}", [f"{fault}; {remedy}"])
    places = np.minimum(np.searchsorted(ascending, id_hashes), len(ascending) - 1)
    return order[places], ascending[places] == id_hashes


class _BlobMeta(FrozenModel):
    """What stands beside the arrays of a stored map."""

    card: ClusterMapCard
    width: int = Field(ge=1, le=MAX_COUNT, description="numbers per centroid")


def encode_blob(found: ClusterMap) -> Blob:
    """Return a map as a blob; no copy where arrays lie in memory as they are stored."""
    meta = _BlobMeta(card=card_of(found), width=found.centroids.shape[1])
    chunks = []
    for name, (dtype, _) in KINDS.items():
        array = getattr(found, name)
        stored = np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("<"))
        chunks += split(stored.reshape(-1).view(np.uint8).data)
    return Blob(found.version, meta.model_dump(mode="json"), chunks)


def decode_blob(stored: StoredBlob, version: str, place: str) -> ClusterMap:
    """Read a map out of its blob, all of it into memory, and check it.

    Raises InvalidClusterMapError with every fault: a chunk missing or of a wrong length, bytes
    that do not have the digest, arrays that are not the map of the card.
    """
    meta = _parse_meta(stored, version, place)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(ARRAYS, (meta.card.items,))
    shapes["centroids"] = (meta.card.level_1_codes, meta.width)
    arrays, buffers = _allocate(shapes, stored.header.num_chunks if stored.header else 0, place)
    if faults := stored.read_into(buffers):
        raise InvalidClusterMapError(place, [f"{one}: publish the map anew" for one in faults])
    return _checked(arrays, meta.card, place, "it is described as", "publish the map anew")


def _parse_meta(stored: StoredBlob, version: str, place: str) -> _BlobMeta:
    try:
        meta = _BlobMeta.model_validate(stored.header.meta if stored.header else None)
    except ValidationError:
        meta = None
    if meta is None or meta.card.version != version:
        fault = "its description cannot be read, or is of another map; publish it anew"
        raise InvalidClusterMapError(place, [fault])
    return meta


def _allocate(
    shapes: dict[str, tuple[int, ...]], num_chunks: int, place: str
) -> tuple[dict[str, NDArray[Any]], list[Buffer]]:
    """Return arrays and their chunks; nothing is allocated for a description that is absurd."""
    dtypes = {name: np.dtype(kind).newbyteorder("<") for name, (kind, _) in KINDS.items()}
    sizes = [math.prod(shapes[name]) * dtypes[name].itemsize for name in ARRAYS]
    expected = sum(-(-size // CHUNK_BYTES) for size in sizes)
    if num_chunks != expected:
        fault = f"the description tells of {num_chunks} chunks, its sizes of {expected}"
        raise InvalidClusterMapError(place, [f"{fault}; publish the map anew"])
    try:
        arrays = {name: np.empty(shapes[name], dtypes[name]) for name in ARRAYS}
    except MemoryError as error:
        fault = f"takes {sum(sizes):,} bytes, expected what memory has room for"
        raise InvalidClusterMapError(place, [f"{fault}; publish a smaller map"]) from error
    flat = [array.reshape(-1).view(np.uint8).data for array in arrays.values()]
    return arrays, [chunk for one in flat for chunk in split(one)]


def _checked(
    arrays: dict[str, NDArray[Any]], card: ClusterMapCard, place: str, told: str, remedy: str
) -> ClusterMap:
    """Make a map of arrays that must be the ones that its card tells of."""
    arrays = {name: np.asarray(array, KINDS[name][0]) for name, array in arrays.items()}
    try:
        found = ClusterMap(**arrays, temperature_share=card.temperature_share, made=dict(card.made))
    except ValueError as error:
        raise InvalidClusterMapError(place, [f"{error}; {remedy}"]) from error
    if card_of(found) != card:
        fault = f"{told} {_summary(card)}, the arrays are {_summary(card_of(found))}"
        faults = [f"{fault}; they were changed or are of two maps: {remedy}"]
        raise InvalidClusterMapError(place, faults)
    return found


def _read_card(folder: Path, faults: list[str]) -> ClusterMapCard | None:
    try:
        return ClusterMapCard.model_validate_json((folder / CARD).read_bytes())
    except OSError as error:
        faults.append(f"{CARD}: cannot be read ({error.strerror}); without it there is no map")
    except ValidationError as error:
        faults += [f"{CARD}: {fault}" for fault in faults_of(error)]
    return None


def _summary(card: ClusterMapCard) -> str:
    return (
        f"version {card.version} ({card.items} items, {card.level_1_codes} clusters, "
        f"{card.level_2_codes} level-2 codes)"
    )
