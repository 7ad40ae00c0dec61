"""The one door to Redis: a client that answers soon or not at all, and says why in our words.

It knows keys and bytes, not what is kept under them.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import (
    AuthenticationError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    WatchError,
)
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from index.errors import ConfigError, StoreFullError, StoreUnreachableError
from index.stores.redis_address import no_address, place_of
from index.stores.redis_announcements import RedisAnnouncements

TIMEOUT_S = 0.5
MOST_TRIES = 200  # of a change that others get in the way of
MOST_PAUSE_S = 0.02  # between two of them
NONSENSE = (ValueError, TypeError, LookupError, AttributeError)  # what a parser stumbles with

# a script, since a full Redis begins no transaction, not even one that makes room
REMOVE = """
for place = 1, #ARGV do
  if (redis.call('GET', KEYS[place]) or '') ~= ARGV[place] then return 0 end
end
for place = #ARGV + 1, #KEYS do redis.call('UNLINK', KEYS[place]) end
return 1
"""

Command = tuple[str | bytes | int, ...]
Outcome = TypeVar("Outcome")


class Watched:
    """What a change is planned from: if any of it changes meanwhile, the plan is made anew."""

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe

    def get(self, key: str) -> bytes | None:
        """Read a key."""
        self._pipe.watch(key)
        return _read(self._pipe.execute_command, key)

    def count(self, keys: Sequence[str]) -> int:
        """Return how many of these keys exist."""
        self._pipe.watch(*keys)
        return int(self._pipe.execute_command("EXISTS", *keys))


class RedisDoor:
    """A Redis behind an address: redis://, rediss:// (TLS) or unix://.

    timeout_s  for connecting, and for each answer; nothing is tried twice

    All methods raise StoreUnreachableError, and StoreFullError where memory is used up. Raises
    ConfigError if the address is none.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self.place = place_of(url)
        self._timeout_s = timeout_s
        try:
            self._redis = Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
                # a server's announcement of maintenance would stretch the timeouts
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
        except (ValueError, TypeError):
            raise ConfigError(no_address(url)) from None  # the cause may quote the address
        self._secrets = _secrets_of(self._redis)
        self._database = self._redis.connection_pool.connection_kwargs.get("db", 0)

    def get(self, key: str) -> bytes | None:
        """Read a key; None where it is not there."""
        with self._naming_faults():
            return _read(self._redis.execute_command, key)

    def get_head(self, key: str, count: int) -> bytes | None:
        """Read the first bytes of a key; None where it is not there, or empty."""
        with self._naming_faults():
            return (
                _read(self._redis.execute_command, key, ("GETRANGE", key, 0, count - 1)) or None
            )

    def put(self, key: str, value: bytes | memoryview, for_s: float) -> None:
        """Write a key that goes after a time."""
        with self._naming_faults():
            self._redis.execute_command("SET", key, value, "PX", milliseconds(for_s))

    def find(self, prefix: str) -> list[str]:
        """Return the keys that begin so; looks at every key of the database."""
        with self._naming_faults():
            found = self._redis.scan_iter(match=f"{prefix}*", count=1_000)
            return sorted({key.decode(errors="replace") for key in found})

    def left_s(self, key: str) -> float | None:
        """Return how long a key still stays; None where it stays for good, or is not there."""
        with self._naming_faults():
            left_ms = int(self._redis.execute_command("PTTL", key))
        return None if left_ms < 0 else left_ms / 1_000

    def discard(self, keys: Sequence[str]) -> None:
        """Remove keys that would go by themselves, if that can be done now."""
        with suppress(StoreUnreachableError, StoreFullError), self._naming_faults():
            self._redis.execute_command("UNLINK", *keys)

    def remove(self, keys: Sequence[str], grounds: Mapping[str, bytes | None]) -> bool:
        """Remove keys, unless what the decision was grounded on has changed.

        Works where memory is used up, too. Returns whether they were removed.
        """
        values = [value or b"" for value in grounds.values()]
        asked = (REMOVE, len(grounds) + len(keys), *grounds, *keys, *values)
        with self._naming_faults():
            return int(self._redis.execute_command("EVAL", *asked)) == 1

    def change(self, plan: Callable[[Watched], tuple[list[Command], Outcome]]) -> Outcome:
        """Do what a plan says in one transaction; plan anew where its grounds changed.

        Raises StoreUnreachableError where others get in the way all the time.
        """
        with self._naming_faults():
            for _ in range(MOST_TRIES):
                with suppress(WatchError), self._redis.pipeline() as pipe:
                    commands, outcome = plan(Watched(pipe))
                    pipe.multi()
                    for command in commands:
                        pipe.execute_command(*command)
                    pipe.execute()
                    return outcome
                time.sleep(random.uniform(0, MOST_PAUSE_S))
        raise StoreUnreachableError(
            f"{self.place}: others changed it {MOST_TRIES} times while a change was planned, "
            "expected a moment of quiet; see who publishes here, and try again"
        )

    def listen(self, channel: str) -> RedisAnnouncements:
        """Listen to a channel; connects with the first wait."""
        return RedisAnnouncements(lambda: self._redis.pubsub(), channel)

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()

    @contextmanager
    def _naming_faults(self) -> Iterator[None]:
        """Turn what Redis or the network says into an error of ours, without a password."""
        try:
            yield
        except OutOfMemoryError as error:
            raise StoreFullError(
                f"{self.place}: {self._told(error)}; expected room for a map; raise maxmemory, "
                "or remove old maps with `python -m index clusters prune`"
            ) from error
        except (RedisError, OSError) as error:
            raise StoreUnreachableError(
                f"{self.place}: {self._told(error)}; {self._remedy(error)}"
            ) from error
        except NONSENSE as error:
            # the rest of such an answer would be taken for the next one
            self._redis.connection_pool.disconnect(inuse_connections=False)
            raise StoreUnreachableError(
                f"{self.place}: an answer cannot be understood ({type(error).__name__}: "
                f"{self._told(error)}), expected one of Redis; see that the address is that of "
                "a Redis, and what stands between"
            ) from error

    def _told(self, error: Exception) -> str:
        told = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        for secret in self._secrets:
            told = told.replace(secret, "***")
        return told

    def _remedy(self, error: Exception) -> str:
        said = str(error)
        if isinstance(error, AuthenticationError):
            return "expected to be let in; correct user and password in the address"
        if said.startswith("WRONGTYPE"):
            return "expected text under that key; remove it, or choose another namespace"
        if "DB index is out of range" in said:
            return (
                f"expected to have database {self._database}; correct the number in the "
                "address, or raise `databases` in the configuration of Redis"
            )
        if isinstance(error, ResponseError):
            return "expected this command to be carried out; see the configuration of Redis"
        told = f"expected an answer within {self._timeout_s:g} s"
        if "refused" in said.lower():
            told = f"nothing listens there, {told}"
        return f"{told}; start Redis, or correct its address"


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, one at least: none at all is no time to Redis."""
    return max(int(seconds * 1_000), 1)


def _secrets_of(redis: Redis) -> list[str]:
    password = redis.connection_pool.connection_kwargs.get("password")
    return [password] if password else []


def _read(
    execute: Callable[..., object], key: str, command: Command | None = None
) -> bytes | None:
    try:
        found = execute(*(command or ("GET", key)))
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise ResponseError(f"{error} (the key {key})") from error
        raise
    if found is None or isinstance(found, bytes):
        return found
    raise TypeError(f"found {type(found).__name__}, expected bytes or nothing")
