"""Denylist: ids of items that are never returned, stored as the value of one pointer.

    {"sequence": 1769854500000, "count": 2, "sha256": "..."}     the head, digest of the rest
    "sku-00042"                                                   ids as JSON, sorted
    "sku \\"7\\""

The head alone shows whether the list changed. The list holds ids, not rows, so it is independent
of bundles. If the store is unreachable, damaged, emptied or back at an older list, the last valid
list stays active and is restored.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from index.errors import (
    EsansError,
    InvalidDenylistError,
    NoDenylistError,
    ReadOnlyStoreError,
    TooManyDeniedError,
)
from index.fsio import FrozenModel
from index.ids import MAX_ID_LENGTH
from index.storage.address import NAMESPACE, validate_namespace
from index.storage.local import LocalPointer, Remedies
from index.storage.protocols import Pointer, next_sequence
from index.storage.redis import RedisPointer
from index.storage.redis_client import TIMEOUT_S, RedisClient
from index.storage.watcher import Outcome, Watcher

FILE = "denylist"  # in the bundles folder
MAX_ITEMS = 100_000
HEAD_BYTES = 256  # maximum length of a head
MAX_BYTES = HEAD_BYTES + MAX_ITEMS * (12 * MAX_ID_LENGTH + 3)  # JSON escapes take up to 12 bytes

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
IDS: TypeAdapter[list[str]] = TypeAdapter(list[Id])

log = logging.getLogger("denylist")


class DenylistHead(FrozenModel):
    """First line of a stored denylist.

    The sequence is the Unix time of the change in milliseconds, or the previous sequence plus
    one if that is larger, so it also grows after the store loses its data.
    """

    sequence: int = Field(ge=1)
    count: int = Field(ge=0, le=MAX_ITEMS)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Denylist:
    """A denylist.

    Attributes:
        sequence: Grows with every change.
        ids: Sorted and unique, at most MAX_ITEMS.
    """

    sequence: int
    ids: tuple[str, ...]

    @cached_property
    def head(self) -> DenylistHead:
        """Sequence, count and digest of the list."""
        digest = hashlib.sha256(self._lines).hexdigest()
        return DenylistHead(sequence=self.sequence, count=len(self.ids), sha256=digest)

    @property
    def _lines(self) -> bytes:
        return b"".join(json.dumps(item_id).encode() + b"\n" for item_id in self.ids)

    def render(self) -> bytes:
        """Render the list as bytes."""
        return self.head.model_dump_json().encode() + b"\n" + self._lines

    def is_newer_than(self, head: DenylistHead | None) -> bool:
        """Whether this list supersedes the list of `head` (None: no list)."""
        return head is None or head.sequence < self.sequence


def parse_head(content: bytes, location: str) -> DenylistHead:
    """Parse the head of a list; raises InvalidDenylistError."""
    try:
        return DenylistHead.parse_json(content.split(b"\n", 1)[0])
    except ValueError as error:
        raise _invalid_error(location, "the first line is not a valid head") from error


def parse_denylist(content: bytes, location: str) -> Denylist:
    """Parse and validate a list; raises InvalidDenylistError."""
    head = parse_head(content, location)
    lines = content.split(b"\n", 1)[-1]
    if hashlib.sha256(lines).hexdigest() != head.sha256:
        raise _invalid_error(location, "the sha256 differs from the head")
    try:
        ids = IDS.validate_json(b"[" + b",".join(lines.splitlines()) + b"]", strict=True)
    except ValidationError as error:
        raise _invalid_error(location, "the lines are not JSON ids") from error
    if len(ids) != head.count or ids != sorted(set(ids)):
        raise _invalid_error(location, f"expected {head.count} sorted unique ids")
    return Denylist(head.sequence, tuple(ids))


def _invalid_error(location: str, reason: str) -> InvalidDenylistError:
    remedy = "replace it with `python -m index denylist set`; the last valid list stays active"
    return InvalidDenylistError(location, [f"invalid denylist: {reason}; {remedy}"])


def build_next_denylist(before: Denylist | None, ids: Iterable[str], now_s: float) -> Denylist:
    """Build the list that follows `before`; raises TooManyDeniedError."""
    ascending = sorted(set(ids))
    if len(ascending) > MAX_ITEMS:
        raise TooManyDeniedError(
            f"the denylist: found {len(ascending):,} ids, expected at most {MAX_ITEMS:,}; "
            "remove permanently denied items from the catalogue"
        )
    sequence = next_sequence(before.sequence if before else 0, int(now_s * 1_000))
    return Denylist(sequence, tuple(ascending))


class DenylistStore:
    """Store of one denylist, read and written atomically.

    All methods raise StoreUnreachableError; writers also raise StoreFullError and
    ReadOnlyStoreError, and then change nothing.
    """

    def __init__(self, pointer: Pointer) -> None:
        self._pointer = pointer
        self.location = pointer.location

    def head(self) -> DenylistHead | None:
        """Read the head of the list; None if no list is set. Raises InvalidDenylistError."""
        content = self._pointer.read(HEAD_BYTES)
        return None if content is None else parse_head(content, self.location)

    def load(self) -> Denylist | None:
        """Load the list; None if no list is set. Raises InvalidDenylistError."""
        return self._parse(self._pointer.read())

    def replace(self, ids: Iterable[str], now_s: float) -> Denylist:
        """Replace the whole list; also repairs a damaged one."""
        new_ids = set(ids)
        return self._update(
            lambda content: build_next_denylist(self._parse_or_none(content), new_ids, now_s)
        )

    def update(self, added: Iterable[str], removed: Iterable[str], now_s: float) -> Denylist:
        """Add and remove ids.

        Raises:
            NoDenylistError: No list is set, and the store may have lost one.
            InvalidDenylistError: The list is damaged, so its other ids would be lost.
        """
        added_ids, removed_ids = set(added), set(removed)

        def step(content: bytes | None) -> Denylist:
            before = self._parse(content)
            if before is None and not self._pointer.is_durable:
                raise NoDenylistError(
                    f"{self.location}: no denylist is set, or it was lost; wait for a running "
                    "service to restore it, or create one with `python -m index denylist set`"
                )
            ids = {*before.ids} if before else set()
            return build_next_denylist(before, (ids | added_ids) - removed_ids, now_s)

        return self._update(step)

    def repopulate(self, denylist: Denylist) -> bool:
        """Restore a list that the store lost; return whether it did.

        Raises:
            InvalidDenylistError: The stored list is damaged; an operator may repair it.
        """
        return denylist.is_newer_than(self.head()) and self.overwrite_older(denylist)

    def overwrite_older(self, denylist: Denylist) -> bool:
        """Overwrite a missing, older or damaged list; return whether it did."""

        def plan(content: bytes | None) -> tuple[bytes | None, bool]:
            before = self._parse_or_none(content)
            if not denylist.is_newer_than(before.head if before else None):
                return None, False
            return denylist.render(), True

        return self._pointer.update(plan)

    def _update(self, step: Callable[[bytes | None], Denylist]) -> Denylist:
        def plan(content: bytes | None) -> tuple[bytes, Denylist]:
            after = step(content)
            return after.render(), after

        return self._pointer.update(plan)

    def _parse(self, content: bytes | None) -> Denylist | None:
        return None if content is None else parse_denylist(content, self.location)

    def _parse_or_none(self, content: bytes | None) -> Denylist | None:
        with suppress(InvalidDenylistError):  # replacing it repairs it
            return self._parse(content)
        return None


def local_denylist(file: Path) -> DenylistStore:
    """Build the store of a denylist in a file; its folder must exist."""
    folder = file.parent
    remedies = Remedies(
        unreadable=f"expected {folder} to be a folder and {file.name} a file; correct the path, "
        "or create the folder",
        full="expected free space for a denylist; free some, then retry",
        read_only="expected write access; where the folder is writable, run "
        f"`python -m index denylist set | add | remove --bundles {folder}`",
    )
    pointer = LocalPointer(file, f".{file.name}.lock", remedies, max_bytes=MAX_BYTES)
    return DenylistStore(pointer)


def redis_denylist(
    url: str, namespace: str = NAMESPACE, timeout_s: float = TIMEOUT_S
) -> DenylistStore:
    """Build the store of a denylist in Redis, at the key `{namespace}:denylist:current`.

    Raises:
        ConfigError: The URL or the namespace is invalid.
    """
    validate_namespace(namespace, "denylist")
    client, key = RedisClient(url, timeout_s), f"{namespace}:denylist:current"
    location = f"{client.location}, key {key}"
    return DenylistStore(RedisPointer(client, key, location, max_bytes=MAX_BYTES))


def open_denylist(url: str | None, file: Path, namespace: str = NAMESPACE) -> DenylistStore:
    """Open the denylist in Redis if a URL is given, else in a file; connects lazily.

    Raises:
        ConfigError: The URL or the namespace is invalid.
    """
    return redis_denylist(url, namespace) if url else local_denylist(file)


class DenylistWatcher(Watcher[Denylist]):
    """Watcher of a denylist that keeps the last valid list.

    Args:
        store: Store to watch.
        copies: Local copies, written with retries and read before the store.
        poll_s: Poll interval.
        on_change: Called in the thread with each new list, until it succeeds.
    """

    def __init__(
        self,
        store: DenylistStore,
        copies: Sequence[DenylistStore] = (),
        *,
        poll_s: float = 2.0,
        on_change: Callable[[Denylist], None] = lambda _: None,
    ) -> None:
        super().__init__("denylist", poll_s, log, "denylist")
        self.store = store
        self.on_change = on_change
        self._copies = copies
        self._has_read_copies = False
        self._outdated: dict[DenylistStore, str] = {}  # copies to write, with the last error

    def is_active(self, sequence: int) -> bool:
        """Whether this list, or a later one, is delivered."""
        active = self.value
        return active is not None and active.sequence >= sequence and self.is_delivered

    def poll(self) -> Outcome:
        """Restore a lost list, load a newer one, and write the copies."""
        if not self._has_read_copies:
            self._read_copies()
        self._write_copies()
        if self.value and self.store.repopulate(self.value):
            log.warning("denylist %d restored to %s", self.value.sequence, self.store.location)
        head = self.store.head()
        if head is None:
            return Outcome("empty", (f"no denylist is set in {self.store.location}",))
        if self.value is None or head != self.value.head:
            loaded = self.store.load()
            if loaded:
                self._set_if_newer(loaded)
        return Outcome("following")

    def deliver(self, value: Denylist | None) -> None:
        """Call `on_change`, then write the copies."""
        if value is None:
            return
        self.on_change(value)
        self._outdated = dict.fromkeys(self._copies, "")
        log.info("denylist %d is active: %d items", value.sequence, len(value.ids))
        self._write_copies()

    def _set_if_newer(self, denylist: Denylist) -> None:
        """Set the value unless the list is older; the next poll restores the newer one."""
        if self.value is None or not self.value.is_newer_than(denylist.head):
            self.set_value(denylist)

    def _read_copies(self) -> None:
        """Activate the newest copy before polling the store, which may be slow."""
        self._has_read_copies = True
        for copy in self._copies:
            try:
                loaded = copy.load()
            except EsansError as error:
                log.warning("denylist copy: %s", error)
                continue
            if loaded:
                self._set_if_newer(loaded)
        with suppress(Exception):  # delivered again after the poll, which reports the error
            self.deliver_pending()

    def _write_copies(self) -> None:
        """Write the active list to outdated copies; failures are retried at the next poll."""
        for copy, reason in [*self._outdated.items()]:
            try:
                if self.value:
                    copy.overwrite_older(self.value)
                del self._outdated[copy]
            except EsansError as error:  # a full disk or a read-only bundles folder
                if reason != str(error):
                    is_expected = isinstance(error, ReadOnlyStoreError)
                    level = logging.INFO if is_expected else logging.WARNING
                    log.log(level, "denylist copy not written: %s", error)
                self._outdated[copy] = str(error)
