"""The one door to Redis: a client that answers soon or not at all, and says why in our words.

It knows keys and bytes, not what is kept under them.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline, PubSub
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
from index.storage.address import invalid_address, place_of
from index.storage.protocols import Result

TIMEOUT_S = 0.5
MAX_TRIES = 200  # of a change that others get in the way of
MAX_PAUSE_S = 0.02  # between two of them
NONSENSE = (ValueError, TypeError, LookupError, AttributeError)  # raised by a client's parser

# a script, since a full Redis begins no transaction, not even one that makes room
DELETE = """
for place = 1, #ARGV do
  if (redis.call('GET', KEYS[place]) or '') ~= ARGV[place] then return 0 end
end
for place = #ARGV + 1, #KEYS do redis.call('UNLINK', KEYS[place]) end
return 1
"""

Command = tuple[str | bytes | int, ...]


class Transaction:
    """The keys that a change is planned from: if any of them changes, it is planned again."""

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe

    def get(self, key: str) -> bytes | None:
        """Read a key."""
        self._pipe.watch(key)
        return _read(self._pipe.execute_command, key, ("GET", key))

    def count(self, keys: Sequence[str]) -> int:
        """Return how many of these keys exist."""
        self._pipe.watch(*keys)
        return int(self._pipe.execute_command("EXISTS", *keys))


class RedisNotifications:
    """Hints over pub/sub. Where they cannot be had it waits as long, and then tries again."""

    def __init__(self, open_listener: Callable[[], PubSub], channel: str) -> None:
        self._open_listener = open_listener
        self._channel = channel
        self._listener: PubSub | None = None

    def wait(self, timeout_s: float) -> bool:
        """Return True soon after a notification, False after the timeout; never raises."""
        end = time.monotonic() + timeout_s
        try:
            if self._listener is None:
                self._listener = self._open_listener()
                self._listener.subscribe(self._channel)
            while (left_s := end - time.monotonic()) > 0:
                if self._listener.get_message(ignore_subscribe_messages=True, timeout=left_s):
                    return True
        except Exception:  # a client's parser raises anything on a garbled answer
            self.close()  # what is left on that connection cannot be trusted either
            time.sleep(max(end - time.monotonic(), 0))
        return False

    def close(self) -> None:
        """Stop listening."""
        listener, self._listener = self._listener, None
        if listener:
            with suppress(Exception):  # it is dropped in any case
                listener.close()


class RedisClient:
    """A Redis behind an address: redis://, rediss:// (TLS) or unix://.

    timeout_s  for connecting, and for each answer; nothing is tried twice

    All methods raise StoreUnreachableError, and StoreFullError where memory is used up. Raises
    ConfigError if the address is invalid.
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
            raise ConfigError(invalid_address(url)) from None  # the cause may quote the address
        options = self._redis.connection_pool.connection_kwargs
        self._secrets = [options["password"]] if options.get("password") else []
        self._database = options.get("db", 0)

    def get(self, key: str, num_bytes: int | None = None) -> bytes | None:
        """Read a key, or its first bytes; None where it is not there."""
        command = ("GET", key) if num_bytes is None else ("GETRANGE", key, 0, num_bytes - 1)
        with self._named_errors():
            found = _read(self._redis.execute_command, key, command)
        return found if num_bytes is None else found or None

    def put(self, key: str, value: bytes | memoryview, ttl_s: float) -> None:
        """Write a key that expires."""
        with self._named_errors():
            self._redis.execute_command("SET", key, value, "PX", milliseconds(ttl_s))

    def find(self, prefix: str) -> list[str]:
        """Return the keys that begin so; looks at every key of the database."""
        with self._named_errors():
            found = self._redis.scan_iter(match=f"{prefix}*", count=1_000)
            return sorted({key.decode(errors="replace") for key in found})

    def ttl_s(self, key: str) -> float | None:
        """Return when a key expires; None where it stays, or is not there."""
        with self._named_errors():
            ttl_ms = int(self._redis.execute_command("PTTL", key))
        return None if ttl_ms < 0 else ttl_ms / 1_000

    def discard(self, keys: Sequence[str]) -> None:
        """Delete keys that would expire anyway, if that can be done now."""
        with suppress(StoreUnreachableError, StoreFullError), self._named_errors():
            self._redis.execute_command("UNLINK", *keys)

    def delete(self, keys: Sequence[str], unless_changed: Mapping[str, bytes | None]) -> bool:
        """Delete keys, unless others have changed; return whether they were deleted.

        Works where memory is used up, too.
        """
        values = [value or b"" for value in unless_changed.values()]
        arguments = (len(values) + len(keys), *unless_changed, *keys, *values)
        with self._named_errors():
            return int(self._redis.execute_command("EVAL", DELETE, *arguments)) == 1

    def change(self, plan: Callable[[Transaction], tuple[list[Command], Result]]) -> Result:
        """Run what is planned in one transaction; plan again where it was read meanwhile.

        Raises StoreUnreachableError where others get in the way all the time.
        """
        with self._named_errors():
            for _ in range(MAX_TRIES):
                with suppress(WatchError), self._redis.pipeline() as pipe:
                    commands, result = plan(Transaction(pipe))
                    pipe.multi()
                    for command in commands:
                        pipe.execute_command(*command)
                    pipe.execute()
                    return result
                time.sleep(random.uniform(0, MAX_PAUSE_S))
        raise StoreUnreachableError(
            f"{self.place}: others changed it {MAX_TRIES} times while a change was planned, "
            "expected a moment of quiet; see who publishes here, and try again"
        )

    def listen(self, channel: str) -> RedisNotifications:
        """Listen to a channel; connects with the first wait."""
        return RedisNotifications(lambda: self._redis.pubsub(), channel)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn what Redis or the network says into an error of ours, without a password."""
        try:
            yield
        except OutOfMemoryError as error:
            raise StoreFullError(
                f"{self.place}: {self._text_of(error)}; expected room for a map; raise "
                "maxmemory, or remove old maps with `python -m index clusters prune`"
            ) from error
        except (RedisError, OSError) as error:
            raise StoreUnreachableError(
                f"{self.place}: {self._text_of(error)}; {self._remedy(error)}"
            ) from error
        except NONSENSE as error:
            # the rest of such an answer would be taken for the next one
            self._redis.connection_pool.disconnect(inuse_connections=False)
            raise StoreUnreachableError(
                f"{self.place}: an answer cannot be understood ({type(error).__name__}: "
                f"{self._text_of(error)}), expected one of Redis; see that the address is that "
                "of a Redis, and what stands between"
            ) from error

    def _text_of(self, error: Exception) -> str:
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _remedy(self, error: Exception) -> str:
        text = str(error)
        if isinstance(error, AuthenticationError):
            return "expected to be let in; correct user and password in the address"
        if text.startswith("WRONGTYPE"):
            return "expected text under that key; remove it, or choose another namespace"
        if "DB index is out of range" in text:
            return (
                f"expected to have database {self._database}; correct the number in the "
                "address, or raise `databases` in the configuration of Redis"
            )
        if isinstance(error, ResponseError):
            return "expected this command to be carried out; see the configuration of Redis"
        expected = f"expected an answer within {self._timeout_s:g} s"
        if "rejected" in text.lower():
            expected = f"nothing listens there, {expected}"
        return f"{expected}; start Redis, or correct its address"


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, one at least: none at all is no time to Redis."""
    return max(int(seconds * 1_000), 1)


def _read(execute: Callable[..., object], key: str, command: Command) -> bytes | None:
    try:
        found = execute(*command)
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise ResponseError(f"{error} (the key {key})") from error
        raise
    if found is None or isinstance(found, bytes):
        return found
    raise TypeError(f"found {type(found).__name__}, expected bytes or nothing")
