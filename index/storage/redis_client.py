"""Redis client with short timeouts, no retries, and the package's own errors.

The only module that imports redis. It handles keys and bytes, not their meaning.
"""

import math
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline, PubSub
from redis.connection import AbstractConnection
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
from index.storage.address import invalid_url_message, redact_url
from index.storage.protocols import Result

TIMEOUT_S = 0.5
MAX_TIMEOUTS = 20  # that one operation may take in all: 10 s
MAX_TRIES = 200  # of a transaction that conflicts with other writers
MAX_PAUSE_S = 0.02  # between two tries
NONSENSE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)  # raised by the client's parser on garbled data

# a script, because a full Redis rejects transactions, even those that free memory
DELETE = """
for i = 1, #ARGV do
  if (redis.call('GET', KEYS[i]) or '') ~= ARGV[i] then return 0 end
end
for i = #ARGV + 1, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1
"""

Command = tuple[str | bytes | int, ...]


class Deadline(threading.local):
    """End of the running operation of each thread, on the monotonic clock."""

    end_s = math.inf

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Bound the operation in the block; an outer bound stays if it is earlier."""
        outer, self.end_s = self.end_s, min(self.end_s, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.end_s = outer

    def check(self) -> None:
        """Raise TimeoutError after the end."""
        if time.monotonic() > self.end_s:
            raise TimeoutError


class DeadlineSocket:
    """A connected socket whose reads fail once the deadline has passed.

    The timeout of a socket bounds one read; a server that sends a byte at a time needs many.
    """

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._connected = connected
        self._deadline = deadline

    def __getattr__(self, name: str) -> object:
        return getattr(self._connected, name)

    def recv(self, *arguments: int) -> bytes:
        """Receive bytes; raises TimeoutError after the deadline."""
        self._deadline.check()
        return self._connected.recv(*arguments)

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401  # any buffer
        """Receive bytes into a buffer, as the parser of hiredis does."""
        self._deadline.check()
        return self._connected.recv_into(*arguments)


def with_deadline(kind: type[AbstractConnection], deadline: Deadline) -> type[AbstractConnection]:
    """Return a connection class whose sockets obey the deadline."""

    class DeadlineConnection(kind):  # type: ignore[misc, valid-type]
        def _connect(self) -> DeadlineSocket:
            return DeadlineSocket(super()._connect(), deadline)

    return DeadlineConnection


class Transaction:
    """Reads of a planned transaction; if one of these keys changes, it is planned again."""

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe

    def get(self, key: str, num_bytes: int) -> bytes | None:
        """Read and watch the first bytes of a key; None if it does not exist."""
        self._pipe.watch(key)
        return _read(self._pipe.execute_command, key, num_bytes)

    def count(self, keys: Sequence[str]) -> int:
        """Count the existing keys among `keys`, and watch them."""
        self._pipe.watch(*keys)
        return int(self._pipe.execute_command("EXISTS", *keys))


class RedisNotifications:
    """Notifications over pub/sub; reconnects on the next wait after a failure."""

    def __init__(
        self,
        open_listener: Callable[[], PubSub],
        channel: str,
        limit: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._open_listener = open_listener
        self._channel = channel
        self._limit = limit
        self._listener: PubSub | None = None

    def wait(self, timeout_s: float) -> bool:
        """Return True on a notification, False after the timeout; never raises."""
        end = time.monotonic() + timeout_s
        try:
            with self._limit():
                return self._receive(end)
        except Exception:  # the parser raises any type on garbled data
            self.close()  # the connection may hold more garbled data
            time.sleep(max(end - time.monotonic(), 0))
        return False

    def _receive(self, end: float) -> bool:
        if self._listener is None:
            self._listener = self._open_listener()
            self._listener.subscribe(self._channel)
        while (left_s := end - time.monotonic()) > 0:
            if self._listener.get_message(ignore_subscribe_messages=True, timeout=left_s):
                return True
        return False

    def close(self) -> None:
        """Stop listening."""
        listener, self._listener = self._listener, None
        if listener:
            with suppress(Exception):  # the connection is dropped anyway
                listener.close()


class RedisClient:
    """Redis client for a redis://, rediss:// (TLS) or unix:// URL.

    All methods raise StoreUnreachableError, and StoreFullError if Redis is out of memory.

    Args:
        url: Redis URL.
        timeout_s: For connecting and for each read; there are no retries. An operation takes at
            most MAX_TIMEOUTS of them.

    Raises:
        ConfigError: The URL is invalid.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self.location = redact_url(url)
        self._timeout_s = timeout_s
        try:
            self._redis = Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
                # a maintenance notification of the server would extend the timeouts
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
        except (ValueError, TypeError):
            raise ConfigError(invalid_url_message(url)) from None  # the cause may quote the URL
        self._deadline = Deadline()
        pool = self._redis.connection_pool
        pool.connection_class = with_deadline(pool.connection_class, self._deadline)
        options = pool.connection_kwargs
        self._secrets = [options["password"]] if options.get("password") else []
        self._database = options.get("db", 0)

    def get(self, key: str, num_bytes: int) -> bytes | None:
        """Read the first bytes of a key; None if it does not exist."""
        with self._wrap_errors():
            return _read(self._redis.execute_command, key, num_bytes)

    def set(self, key: str, value: bytes | memoryview, ttl_s: float) -> None:
        """Write a key with a time to live."""
        with self._wrap_errors():
            self._redis.execute_command("SET", key, value, "PX", to_milliseconds(ttl_s))

    def list_keys(self, prefix: str) -> list[str]:
        """List the keys with a prefix; scans all keys of the database."""
        with self._wrap_errors():
            keys = self._redis.scan_iter(match=f"{prefix}*", count=1_000)
            return sorted({key.decode(errors="replace") for key in keys})

    def ttl_s(self, key: str) -> float | None:
        """Time to live of a key; None if it does not expire or does not exist."""
        with self._wrap_errors():
            ttl_ms = int(self._redis.execute_command("PTTL", key))
        return None if ttl_ms < 0 else ttl_ms / 1_000

    def try_delete(self, keys: Sequence[str]) -> None:
        """Delete expiring keys early; store errors are ignored."""
        with suppress(StoreUnreachableError, StoreFullError), self._wrap_errors():
            self._redis.execute_command("UNLINK", *keys)

    def delete_if_unchanged(
        self, keys: Sequence[str], expected: Mapping[str, bytes | None]
    ) -> bool:
        """Delete keys if other keys hold their expected values; return whether they did.

        Also works when Redis is out of memory.
        """
        values = [value or b"" for value in expected.values()]
        arguments = (len(values) + len(keys), *expected, *keys, *values)
        with self._wrap_errors():
            return int(self._redis.execute_command("EVAL", DELETE, *arguments)) == 1

    def transact(self, plan: Callable[[Transaction], tuple[list[Command], Result]]) -> Result:
        """Run the planned commands in one transaction; plan again after a conflict.

        Raises:
            StoreUnreachableError: Every try conflicted with another writer.
        """
        with self._wrap_errors():
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
            f"{self.location}: {MAX_TRIES} transactions in a row conflicted with other writers, "
            "expected one to succeed; check which processes publish here, and retry"
        )

    def listen(self, channel: str) -> RedisNotifications:
        """Subscribe to a channel; connects on the first wait."""
        return RedisNotifications(lambda: self._redis.pubsub(), channel, self._limit)

    def _limit(self) -> AbstractContextManager[None]:
        """Bound an operation."""
        return self._deadline.limit(MAX_TIMEOUTS * self._timeout_s)

    @contextmanager
    def _wrap_errors(self) -> Iterator[None]:
        """Convert errors of Redis and the network to store errors, without the password."""
        try:
            with self._limit():
                yield
        except OutOfMemoryError as error:
            raise StoreFullError(
                f"{self.location}: {self._text_of(error)}; expected free memory; raise "
                "maxmemory, or remove old maps with `python -m index clusters prune`"
            ) from error
        except (RedisError, OSError) as error:
            raise StoreUnreachableError(
                f"{self.location}: {self._text_of(error)}; {self._remedy(error)}"
            ) from error
        except NONSENSE as error:
            # the next command would read the rest of this response
            self._redis.connection_pool.disconnect(inuse_connections=False)
            raise StoreUnreachableError(
                f"{self.location}: invalid response ({type(error).__name__}: "
                f"{self._text_of(error)}), expected the Redis protocol; check that the URL points "
                "to Redis, and any proxy in between"
            ) from error

    def _text_of(self, error: Exception) -> str:
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _remedy(self, error: Exception) -> str:
        text = str(error)
        if isinstance(error, AuthenticationError):
            return "expected access; correct user and password in the URL"
        if text.startswith("WRONGTYPE"):
            return "expected a string at that key; remove it, or choose another namespace"
        if "DB index is out of range" in text:
            return (
                f"expected database {self._database} to exist; correct the number in the URL, "
                "or raise `databases` in the Redis configuration"
            )
        if isinstance(error, ResponseError):
            return "expected the command to succeed; check the Redis configuration"
        return (
            f"expected a response within {self._timeout_s:g} s, and the last one within "
            f"{MAX_TIMEOUTS * self._timeout_s:g} s; start Redis, or correct the URL"
        )


def to_milliseconds(seconds: float) -> int:
    """Convert to whole milliseconds, at least 1: Redis rejects 0."""
    return max(int(seconds * 1_000), 1)


def _read(execute: Callable[..., object], key: str, num_bytes: int) -> bytes | None:
    try:
        value = execute("GETRANGE", key, 0, num_bytes - 1)
        if not value:  # GETRANGE does not tell an empty value from none
            value = execute("GET", key)
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise ResponseError(f"{error} (the key {key})") from error
        raise
    if value is None or isinstance(value, bytes):
        return value
    raise TypeError(f"found {type(value).__name__}, expected bytes or nil")
