"""Cluster maps kept and carried over: plain files in a folder, and a join by id hash.

Files say what a map is; nothing in them is run, and what was changed since is not opened.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from index.arrays import open_array
from index.cluster_map import ARRAYS, CLUSTER_FILES, KINDS, ClusterMap, Hashes
from index.errors import FaultyClusterMapError, ForeignClusterMapError
from index.fsio import Closed, write_json

CARD = "cluster_map.json"
FILES = CLUSTER_FILES
LEAST_OVERLAP = 0.95

Count = Annotated[int, Field(ge=1)]


class ClusterMapCard(Closed):
    """What a map says of itself, beside its arrays."""

    format: Literal[1] = 1
    version: str = Field(pattern=r"^[0-9a-f]{16}$")
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

    Raises FaultyClusterMapError with every fault found.
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
        raise FaultyClusterMapError(str(folder), faults)
    try:
        opened = ClusterMap(
            **arrays, temperature_share=card.temperature_share, made=dict(card.made)
        )
    except ValueError as error:
        raise FaultyClusterMapError(str(folder), [f"{error}; save the map anew"]) from error
    if card_of(opened) != card:
        raise FaultyClusterMapError(
            str(folder),
            [
                f"{CARD} tells of {_told(card)}, the arrays are {_told(card_of(opened))}; "
                "they were changed or are of two maps: save the map anew"
            ],
        )
    return opened


def joined(found: ClusterMap, id_hashes: Hashes) -> ClusterMap:
    """Carry a map over to other items, by id hash: any subset, any order, new ones too.

    id_hashes  [items]  of the other catalogue, in its row order
    returns    a map of those items. Sizes are theirs; clusters may be left without items. An
               item that the map does not know joins all others like it in a cluster of their
               own at the origin, the middle of the catalogue (ours): it is drawn as an easy
               negative, and is never a hard one.

    Raises FaultyClusterMapError if two items of the map share a hash.
    """
    places, is_known = find_hashes(found, id_hashes)
    codes1 = np.where(is_known, found.codes1[places], len(found.centroids)).astype(np.int32)
    codes2 = np.where(is_known, found.codes2[places], 0).astype(np.int32)
    centroids = found.centroids
    if not is_known.all():
        origin = np.zeros((1, centroids.shape[1]), dtype=np.float32)
        centroids = np.concatenate([centroids, origin])
    made = found.made | {
        "joined_from": found.version,
        "unknown_items": int((~is_known).sum()),
    }
    return replace(
        found,
        codes1=codes1,
        codes2=codes2,
        centroids=centroids,
        id_hashes=id_hashes,
        made=made,
    )


def joined_if_akin(found: ClusterMap, id_hashes: Hashes) -> ClusterMap:
    """Carry a map over to other items, as `joined`, unless it is of another catalogue.

    What is shared is measured against the smaller of the two: a catalogue that grew holds all
    items of the map, of one that shrank the map holds all items.

    Raises ForeignClusterMapError below 95 %, FaultyClusterMapError as `joined`.
    """
    carried = joined(found, id_hashes)
    shared = len(id_hashes) - carried.made["unknown_items"]
    smaller = min(len(found), len(id_hashes))
    if shared < LEAST_OVERLAP * smaller:
        raise ForeignClusterMapError(
            f"cluster map {found.version}: shares {shared:,} items with the {len(id_hashes):,} "
            f"known here, expected {LEAST_OVERLAP:.0%} of {smaller:,}, the smaller of the two; "
            "publish a map made of this catalogue, or use another namespace for each"
        )
    return carried


def find_hashes(
    found: ClusterMap, id_hashes: Hashes
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return each hash's row in the map (any row where it has none), and whether it has one.

    Raises FaultyClusterMapError if two items of the map share a hash.
    """
    order = np.argsort(found.id_hashes, kind="stable")
    ascending = found.id_hashes[order]
    twins = np.flatnonzero(ascending[1:] == ascending[:-1])
    if len(twins):
        first, second = order[twins[0]], order[twins[0] + 1]
        raise FaultyClusterMapError(
            f"cluster map {found.version}",
            [
                f"rows {first} and {second} share an id hash, expected distinct ones; "
                "rename one of the two items and make the map anew"
            ],
        )
    places = np.minimum(np.searchsorted(ascending, id_hashes), len(ascending) - 1)
    return order[places], ascending[places] == id_hashes


def _read_card(folder: Path, faults: list[str]) -> ClusterMapCard | None:
    try:
        return ClusterMapCard.model_validate_json((folder / CARD).read_bytes())
    except OSError as error:
        faults.append(f"{CARD}: cannot be read ({error.strerror}); without it there is no map")
    except ValidationError as error:
        faults += [
            f"{CARD}: {'.'.join(str(step) for step in one['loc']) or 'the file'}: {one['msg']}"
            for one in error.errors(include_url=False, include_input=False)
        ]
    return None


def _told(card: ClusterMapCard) -> str:
    return (
        f"version {card.version} ({card.items} items, {card.level_1_codes} clusters, "
        f"{card.level_2_codes} level-2 codes)"
    )
