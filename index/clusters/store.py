"""A store of cluster maps: one is current, others wait to be rolled back to, or to expire.

What every store promises. Redis is `redis_clusters`', a folder `folder_clusters`', which one is
meant `store_address`'; how a pointer moves `pointer_moves`', to follow `cluster_follower`'s.
"""

from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from index.cluster_map import ClusterMap
from index.fsio import Closed

VERSION_PATTERN = r"^[0-9a-f]{16}$"
KEEP_S = 3_600.0  # how long a superseded map stays
KEEP_COUNT = 8  # and how many maps at most


class ClusterPointer(Closed):
    """What `current` says. The sequence grows with every change; versions may go back.

    It is the time of the change in unix milliseconds, or one more than the sequence before
    where that is larger: so it grows on even where the store forgot everything.
    """

    sequence: int = Field(ge=1)
    version: str = Field(pattern=VERSION_PATTERN)
    previous: str | None = Field(pattern=VERSION_PATTERN)
    pinned: bool = False

    @property
    def kept(self) -> set[str]:
        """Return the versions that do not expire."""
        return {self.version} | ({self.previous} if self.previous else set())


@dataclass(frozen=True)
class ListedMap:
    """A line of the list of what a store holds.

    made_at       UTC, ISO 8601: when the map was made, or else when it was stored
    expires_in_s  None where it stays
    """

    version: str
    items: int
    level_1_codes: int
    made_at: str
    is_current: bool
    is_previous: bool
    expires_in_s: float | None


class Announcements(Protocol):
    """A hint that a pointer may have moved; one may be missed, the pointer is the truth."""

    def wait(self, timeout_s: float) -> bool:
        """Return True soon after an announcement, False after the timeout; never raises."""

    def close(self) -> None:
        """Stop listening."""


class ClusterStore(Protocol):
    """Maps by version, and a pointer to the current one.

    A reader sees a map whole or not at all. A map that is neither current nor the one before it
    goes after its time, and the oldest of them where there are many. All methods raise
    StoreUnreachableError where the store does not answer, writers StoreFullError where it has
    no room, and ReadOnlyStoreError where it may not be written; then nothing was changed.
    """

    @property
    def place(self) -> str:
        """Name the store for people; holds no password."""

    def pointer(self) -> ClusterPointer | None:
        """Read which map is current; None where nothing was published.

        Raises FaultyClusterMapError if what is there is no pointer.
        """

    def read(self, version: str) -> ClusterMap:
        """Return a map, checked.

        Raises NoClusterMapError if it is not there, FaultyClusterMapError if it is damaged.
        """

    def publish(self, found: ClusterMap) -> ClusterPointer:
        """Store a map and make it current, unless a pin holds another one.

        Then it is stored, to be pinned before it expires, and the pointer returned names the
        pinned version.
        """

    def seed(self, found: ClusterMap, pointer: ClusterPointer) -> bool:
        """Put a map and its pointer back, as they were; return whether that was needed.

        That is where nothing is published, or what is current is older than this pointer.
        """

    def listed(self) -> list[ListedMap]:
        """Return what is stored, oldest first."""

    def pin(self, version: str | None = None) -> ClusterPointer:
        """Hold on to a version, or to the current one, until `unpin`; makes it current."""

    def unpin(self) -> ClusterPointer:
        """Let the next map that is published become current again."""

    def roll_back(self, version: str | None = None) -> ClusterPointer:
        """Make the version before the current one current, or the one named.

        Done twice without a name it returns to where it began. A pin stays a pin.
        Raises NoClusterMapError if there is none before it, or the one named is not there.
        """

    def prune(self, keep_count: int) -> list[str]:
        """Remove all but the newest `keep_count` maps; return what was removed.

        The current map and the one before it always stay.
        """

    def announcements(self) -> Announcements | None:
        """Listen for changes; None where a store does not tell of them."""
