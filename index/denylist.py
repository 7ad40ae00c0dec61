"""The denylist: ids of items that are never returned; stored as one pointer's value, watched.

    {"sequence": 1769854500000, "count": 2, "sha256": "..."}     the head: over what follows
    "sku-00042"                                                   an id as JSON, in order
    "sku \\"7\\""

The head alone tells whether anything changed. The list knows no rows: a bundle may hold an id
or not, today or tomorrow. What was denied stays denied: where the store is away, damaged,
emptied or back at an older list, the last good list stays in force and is put back.
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
from index.storage.address import NAMESPACE, check_namespace
from index.storage.local import LocalPointer, Remedies
from index.storage.protocols import Pointer
from index.storage.redis import RedisPointer
from index.storage.redis_client import TIMEOUT_S, RedisClient
from index.storage.watcher import Outcome, Watcher

FILE = "denylist"  # among the bundles
MAX_ITEMS = 100_000
ID_LENGTH = 512  # characters
HEAD_BYTES = 256  # no head is longer

Id = Annotated[str, Field(min_length=1, max_length=ID_LENGTH)]
IDS: TypeAdapter[list[str]] = TypeAdapter(list[Id])

log = logging.getLogger("denylist")


class DenylistHead(FrozenModel):
    """What a denylist says of itself. The sequence grows with every change.

    It is the time of the change in unix milliseconds, or one more than the sequence before
    where that is larger: so it grows on even where the store forgot everything.
    """

    sequence: int = Field(ge=1)
    count: int = Field(ge=0, le=MAX_ITEMS)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Denylist:
    """A denylist.

    ids  ascending, each once, at most MAX_ITEMS
    """

    sequence: int
    ids: tuple[str, ...]

    @cached_property
    def head(self) -> DenylistHead:
        """Return what the list says of itself."""
        digest = hashlib.sha256(self._lines).hexdigest()
        return DenylistHead(sequence=self.sequence, count=len(self.ids), sha256=digest)

    @property
    def _lines(self) -> bytes:
        return b"".join(json.dumps(one).encode() + b"\n" for one in self.ids)

    def render(self) -> bytes:
        """Return the list as bytes."""
        return self.head.model_dump_json().encode() + b"\n" + self._lines

    def is_newer_than(self, head: DenylistHead | None) -> bool:
        """Tell whether a store that says so has lost this list."""
        return head is None or head.sequence < self.sequence


def parse_head(found: bytes, place: str) -> DenylistHead:
    """Read the head of a list; raises InvalidDenylistError if it is none."""
    try:
        return DenylistHead.model_validate_json(found.split(b"\n", 1)[0])
    except ValidationError as error:
        raise _faulty(place, "its first line cannot be read as a head") from error


def parse_list(found: bytes, place: str) -> Denylist:
    """Read a list; raises InvalidDenylistError if it is damaged."""
    head = parse_head(found, place)
    lines = found.split(b"\n", 1)[-1]
    if hashlib.sha256(lines).hexdigest() != head.sha256:
        raise _faulty(place, "it is not what was written (sha256 differs)")
    try:
        ids = IDS.validate_json(b"[" + b",".join(lines.splitlines()) + b"]", strict=True)
    except ValidationError as error:
        raise _faulty(place, "its lines are no ids") from error
    if len(ids) != head.count or ids != sorted(set(ids)):
        raise _faulty(place, f"expected {head.count} ids in order, each once")
    return Denylist(head.sequence, tuple(ids))


def _faulty(place: str, found: str) -> InvalidDenylistError:
    remedy = (
        "write it anew with `python -m index denylist set`; the list held before stays in force"
    )
    return InvalidDenylistError(place, [f"the denylist cannot be used: {found}; {remedy}"])


def next_list(before: Denylist | None, ids: Iterable[str], now_s: float) -> Denylist:
    """Return the list that follows another one.

    Raises TooManyDeniedError.
    """
    ascending = sorted(set(ids))
    if len(ascending) > MAX_ITEMS:
        raise TooManyDeniedError(
            f"the denylist: found {len(ascending):,} ids, expected at most {MAX_ITEMS:,}; "
            "leave those out of the catalogue that are gone for good"
        )
    sequence = max(before.sequence + 1 if before else 1, int(now_s * 1_000))
    return Denylist(sequence, tuple(ascending))


class DenylistStore:
    """One denylist, seen whole or not at all.

    All methods raise StoreUnreachableError where the store does not answer; writers
    StoreFullError and ReadOnlyStoreError, too: then nothing was changed.
    """

    def __init__(self, pointer: Pointer) -> None:
        self._pointer = pointer
        self.place = pointer.place

    def head(self) -> DenylistHead | None:
        """Read what the list says of itself, None where there is none.

        Raises InvalidDenylistError if what is there is no denylist.
        """
        found = self._pointer.read(HEAD_BYTES)
        return None if found is None else parse_head(found, self.place)

    def read(self) -> Denylist | None:
        """Read the list, None where there is none; raises InvalidDenylistError."""
        return self._parse(self._pointer.read())

    def replace(self, ids: Iterable[str], now_s: float) -> Denylist:
        """Deny these items and no others; so a damaged list is repaired."""
        wanted = set(ids)
        return self._update(lambda found: next_list(self._parse_or_none(found), wanted, now_s))

    def change(self, added: Iterable[str], removed: Iterable[str], now_s: float) -> Denylist:
        """Deny some items more, and others no longer.

        Raises NoDenylistError where there is no list, and the store may have lost one, and
        InvalidDenylistError where it is damaged: what it denied would be denied no longer.
        """
        more, fewer = set(added), set(removed)

        def step(found: bytes | None) -> Denylist:
            before = self._parse(found)
            if before is None and not self._pointer.is_durable:
                raise NoDenylistError(
                    f"{self.place}: holds no denylist (never set, or lost), and none "
                    "is begun here, lest one be lost for good; wait for a service that holds "
                    "one to put it back, or begin one with `python -m index denylist set`"
                )
            ids = {*before.ids} if before else set()
            return next_list(before, (ids | more) - fewer, now_s)

        return self._update(step)

    def repopulate(self, held: Denylist) -> bool:
        """Give a store what it has lost; return whether that was needed.

        Raises InvalidDenylistError where it holds a damaged list, which a person may repair.
        """
        return held.is_newer_than(self.head()) and self.overwrite_older(held)

    def overwrite_older(self, held: Denylist) -> bool:
        """Put a list where there is none, an older or a damaged one; return whether it was."""

        def plan(found: bytes | None) -> tuple[bytes | None, bool]:
            before = self._parse_or_none(found)
            if not held.is_newer_than(before.head if before else None):
                return None, False
            return held.render(), True

        return self._pointer.update(plan)

    def _update(self, step: Callable[[bytes | None], Denylist]) -> Denylist:
        def plan(found: bytes | None) -> tuple[bytes, Denylist]:
            after = step(found)
            return after.render(), after

        return self._pointer.update(plan)

    def _parse(self, found: bytes | None) -> Denylist | None:
        return None if found is None else parse_list(found, self.place)

    def _parse_or_none(self, found: bytes | None) -> Denylist | None:
        with suppress(InvalidDenylistError):  # being replaced repairs it
            return self._parse(found)
        return None


def local_denylist(file: Path) -> DenylistStore:
    """Return the list in a file, whose folder must be there."""
    folder = file.parent
    remedies = Remedies(
        unreadable=f"expected {folder} to be a folder; correct its name, or make it, and "
        f"{file.name} in it a file",
        full="expected room for a denylist; make some, try again",
        read_only="expected the right to write there; where the folder may be written, run "
        f"`python -m index denylist set | add | remove --bundles {folder}`",
    )
    return DenylistStore(LocalPointer(file, f".{file.name}.lock", remedies))


def redis_denylist(
    url: str, namespace: str = NAMESPACE, timeout_s: float = TIMEOUT_S
) -> DenylistStore:
    """Return the list in Redis, under one key: `{namespace}:denylist:current`.

    Raises ConfigError if the address or the namespace cannot be used.
    """
    check_namespace(namespace, "denylist")
    client, key = RedisClient(url, timeout_s), f"{namespace}:denylist:current"
    return DenylistStore(RedisPointer(client, key, f"{client.place}, key {key}"))


def open_denylist(url: str | None, file: Path, namespace: str = NAMESPACE) -> DenylistStore:
    """Return the list in Redis where there is an address, else the file.

    Nothing is connected or written yet. Raises ConfigError if the address is invalid.
    """
    return redis_denylist(url, namespace) if url else local_denylist(file)


class DenylistWatcher(Watcher[Denylist]):
    """Holds the last good denylist, whatever happens to its store.

    copies     where the list is kept too, tried until it is; read before the store is asked
    on_change  called in the thread with each list that comes into force, until it succeeds
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
        self._lacking: dict[DenylistStore, str] = {}  # copies without the list, and why

    def is_in_force(self, sequence: int) -> bool:
        """Tell whether this list, or a later one, was taken, and delivered with success."""
        held = self.value
        return held is not None and held.sequence >= sequence and self.is_delivered

    def poll(self) -> Outcome:
        """Put back what the store has lost, take what is newer, and keep the copies."""
        if not self._has_read_copies:
            self._read_copies()
        self._write_copies()
        if self.value and self.store.repopulate(self.value):
            log.warning("denylist %d put back into %s", self.value.sequence, self.store.place)
        head = self.store.head()
        if head is None:
            return Outcome("empty", (f"no denylist is set in {self.store.place}",))
        if self.value is None or head != self.value.head:
            found = self.store.read()
            if found:
                self._take_newer(found)
        return Outcome("following")

    def deliver(self, value: Denylist | None) -> None:
        """Bring a list into force, and keep it in the copies."""
        if value is None:
            return
        self.on_change(value)
        self._lacking = dict.fromkeys(self._copies, "")
        log.info("denylist %d is in force: %d items", value.sequence, len(value.ids))
        self._write_copies()

    def _take_newer(self, found: Denylist) -> None:
        """Take a list, unless it is older: that is put right at the next poll."""
        if self.value is None or not self.value.is_newer_than(found.head):
            self.take(found)

    def _read_copies(self) -> None:
        """Bring the newest copy into force before the store, which may be slow, is asked."""
        self._has_read_copies = True
        for copy in self._copies:
            try:
                found = copy.read()
            except EsansError as error:
                log.warning("copy of the denylist: %s", error)
                continue
            if found:
                self._take_newer(found)
        with suppress(Exception):  # delivered again after the poll, which then tells
            self.deliver_taken()

    def _write_copies(self) -> None:
        """Write the list in force into the copies that lack it, until it is there."""
        for copy, reason in [*self._lacking.items()]:
            try:
                if self.value:
                    copy.overwrite_older(self.value)
                del self._lacking[copy]
            except EsansError as error:  # a full disk, or bundles that may only be read
                if reason != str(error):
                    is_usual = isinstance(error, ReadOnlyStoreError)
                    level = logging.INFO if is_usual else logging.WARNING
                    log.log(level, "denylist not kept in a copy: %s", error)
                self._lacking[copy] = str(error)
