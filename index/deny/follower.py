"""Follows the deny list in a thread of its own, and holds the last good one, whatever happens.

What was denied stays denied: where the store is away, damaged, emptied or back at an older
list, the list that is held stays in force and is put back. Copies keep it across restarts.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from index.clusters.follower_state import NOT_ASKED, News, Status, news_of
from index.deny.deny_list import DenyList, is_lost
from index.deny.store import DenyStore, put_back
from index.errors import EsansError, ReadOnlyStoreError
from index.stores.looks import Looks

STOP_S = 5.0  # how long a stop waits for a look that has begun

log = logging.getLogger("deny")


@dataclass(frozen=True)
class DenyState:
    """How the following goes.

    changes, refusals, errors  counted since the start; a refusal once, errors at every look
    """

    status: Status = "empty"
    reasons: tuple[str, ...] = (NOT_ASKED,)
    changes: int = 0
    refusals: int = 0
    errors: int = 0


class DenyFollower:
    """One daemon thread over one store.

    copies     where the list is kept too, tried until it is; read before the store is asked
    on_change  called in the thread with each list that comes into force, until it succeeds
    """

    def __init__(
        self,
        store: DenyStore,
        copies: Sequence[DenyStore] = (),
        *,
        poll_s: float = 2.0,
        on_change: Callable[[DenyList], None] = lambda _: None,
    ) -> None:
        self.store = store
        self.on_change = on_change
        self._copies = copies
        self._poll_s = poll_s
        self._held: DenyList | None = None
        self._has_read_copies = False
        self._is_owed = False  # a call of `on_change` for what is held
        self._lacking: dict[DenyStore, str] = {}  # copies without what is held, and why
        self._state = DenyState()
        self._looks = Looks()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="deny-list", daemon=True)

    @property
    def held(self) -> DenyList | None:
        """Return the list in force, None where there never was one."""
        return self._held

    @property
    def state(self) -> DenyState:
        """Say how the following goes."""
        return self._state

    def is_in_force(self, sequence: int) -> bool:
        """Tell whether this list, or a later one, was taken, and told of with success."""
        held = self._held
        return held is not None and held.sequence >= sequence and not self._is_owed

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a look that has begun is waited for, but not for ever."""
        self._stopping.set()
        self._looks.want()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self._state = replace(self._state, status="stopped", reasons=())

    def wait_for_the_first(self, limit_s: float) -> None:
        """Wait until copies and store have been looked at once, but not for ever."""
        self._looks.wait_for_the_first(limit_s)

    def wait_for_a_look(self, limit_s: float) -> bool:
        """Look now; return whether the look ended in time."""
        return self._looks.wait_for_one(limit_s)

    def _follow(self) -> None:
        try:
            while not self._stopping.is_set():
                with self._looks.one():
                    self._look()
                self._looks.rest(self._poll_s)
        except Exception as error:  # a thread's last word: without it nobody would know
            told = (
                f"the following ended by {type(error).__name__}: {error}; restart, report this"
            )
            self._tell(News("stopped", (told,), 1, error))
        finally:
            self._looks.end()

    def _look(self) -> None:
        if not self._has_read_copies:
            self._read_copies()
            self._has_read_copies = True
            news_of(lambda: self._paid(News("following", ())))  # the store may keep us waiting
        news = news_of(self._poll)
        self._tell(news_of(lambda: self._kept(self._paid(news))))

    def _read_copies(self) -> None:
        """Hold the newest copy, before the store is asked."""
        for copy in self._copies:
            try:
                found = copy.read()
            except EsansError as error:
                log.warning("copy of the deny list: %s", error)
                continue
            if found:
                self._take(found)

    def _poll(self) -> News:
        if self._held and put_back(self.store, self._held):
            log.warning("deny list %d put back into %s", self._held.sequence, self.store.place)
        head = self.store.head()
        if head is None:
            return News("empty", (f"no deny list is set in {self.store.place}",))
        if self._held is None or head != self._held.head:
            found = self.store.read()
            if found:
                self._take(found)
        return News("following", ())

    def _take(self, found: DenyList) -> None:
        if self._held and is_lost(found.head, self._held):
            return  # an older one, come in between: put right at the next look
        self._held, self._is_owed = found, True
        self._state = replace(self._state, changes=self._state.changes + 1)

    def _paid(self, news: News) -> News:
        """Tell of what is held, unless that has gone well already."""
        held = self._held
        if held is None or not self._is_owed:
            return news
        self.on_change(held)
        self._is_owed = False
        self._lacking = dict.fromkeys(self._copies, "")
        log.info("deny list %d is in force: %d items", held.sequence, len(held.ids))
        return news

    def _kept(self, news: News) -> News:
        """Write what is held into the copies that lack it; at every look, until it is there."""
        held = self._held
        if held is None:
            return news
        for copy, told in [*self._lacking.items()]:
            try:
                copy.seed(held)
                del self._lacking[copy]
            except EsansError as error:  # a full disk, or bundles that may only be read
                if told != str(error):
                    is_usual = isinstance(error, ReadOnlyStoreError)
                    level = logging.INFO if is_usual else logging.WARNING
                    log.log(level, "deny list not kept in a copy: %s", error)
                self._lacking[copy] = str(error)
        return news

    def _tell(self, news: News) -> None:
        """Change the state; log it once where it is news."""
        state = self._state
        refusals = state.refusals
        if (news.status, news.reasons) != (state.status, state.reasons):
            refusals += news.status == "refused"
            level = logging.INFO if news.status in ("following", "empty") else logging.WARNING
            told = "".join(f"; {one}" for one in news.reasons)
            log.log(level, "deny list: %s%s", news.status, told, exc_info=news.trouble)
        self._state = replace(
            state,
            status=news.status,
            reasons=news.reasons,
            refusals=refusals,
            errors=state.errors + news.errors,
        )
