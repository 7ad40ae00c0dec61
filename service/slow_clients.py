"""Limits of slow clients: time to send a head, rate of reading, and memory of unread responses.

uvicorn enforces none of them: a response that no client reads would stay in memory.
"""

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass

from service.connection import Connection, is_idle
from service.logging_config import fields

WINDOW_S = 5.0  # over which the rate of reading is measured

log = logging.getLogger("service")


@dataclass(frozen=True)
class ClientLimits:
    """Limits of slow clients.

    Attributes:
        head_timeout_s: time to send a complete head.
        min_read_rate: bytes read per second, over `WINDOW_S`.
        connection_unsent: unread bytes of a connection, after `WINDOW_S`.
        unsent: unread bytes of all connections.
    """

    head_timeout_s: float
    min_read_rate: int
    connection_unsent: int
    unsent: int


class Reading:
    """Progress of a client that reads a response.

    Attributes:
        unsent: bytes that wait to be sent.
        rate: bytes per second in the current window; infinite until it is measured.
    """

    def __init__(self, unsent: int, now: float) -> None:
        self.unsent, self.rate = unsent, math.inf
        self._started_at = self._window_at = now
        self._num_read = 0

    def update(self, unsent: int, now: float) -> None:
        """Add what was read since the last update.

        More unsent bytes than before mean that the client has read those of before: a response
        is continued only once little of it is left.
        """
        self._num_read += self.unsent if unsent > self.unsent else self.unsent - unsent
        self.unsent = unsent
        self.rate = self._num_read / max(now - self._window_at, 1e-3)

    def violation(self, limits: ClientLimits, now: float) -> str | None:
        """Return the limit that is exceeded, at the end of a window."""
        if now - self._started_at >= WINDOW_S and self.unsent > limits.connection_unsent:
            return "unread bytes"
        if now - self._window_at < WINDOW_S:
            return None
        is_slow = self.rate < limits.min_read_rate
        self._window_at, self._num_read = now, 0
        return "read rate" if is_slow else None


class SlowClients:
    """Closes the connections of clients that exceed the limits."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._awaiting_head: dict[Connection, float] = {}
        self._readings: dict[Connection, Reading] = {}

    def close(self, connections: Collection[Connection], now: float) -> None:
        """Close connections; to be called about once per second."""
        self._awaiting_head = {
            connection: self._awaiting_head.get(connection, now)
            for connection in connections
            if is_idle(connection) and connection.timeout_keep_alive_task is None
        }
        for connection, since in self._awaiting_head.items():
            if now - since > self._limits.head_timeout_s:
                connection.transport.close()
        self._update_readings(connections, now)
        for connection, reading in list(self._readings.items()):
            if violation := reading.violation(self._limits, now):
                self._abort(connection, violation)
        self._abort_slowest()

    def _update_readings(self, connections: Collection[Connection], now: float) -> None:
        readings = {}
        for connection in connections:
            unsent = connection.transport.get_write_buffer_size()
            if not unsent:
                continue
            reading = self._readings.get(connection)
            if reading:
                reading.update(unsent, now)
            readings[connection] = reading or Reading(unsent, now)
        self._readings = readings

    def _abort_slowest(self) -> None:
        """Close the slowest clients until the unread bytes of all are within the limit."""
        total = sum(reading.unsent for reading in self._readings.values())
        for connection, reading in sorted(self._readings.items(), key=lambda each: each[1].rate):
            if total <= self._limits.unsent or math.isinf(reading.rate):
                break
            total -= reading.unsent
            self._abort(connection, "unread bytes of all clients")

    def _abort(self, connection: Connection, limit: str) -> None:
        reading = self._readings.pop(connection)
        log.warning(
            "slow client closed",
            extra=fields(limit=limit, unsent=reading.unsent, bytes_per_s=round(reading.rate)),
        )
        connection.abort()
