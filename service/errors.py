"""Errors that the service itself raises; `error_handlers` maps each to a problem."""

from collections.abc import Sequence

from index.errors import RequestError
from service.schemas.shared import Fault

MAX_FAULTS_SHOWN = 20


class BodyTooLargeError(RequestError):
    """The body has more bytes than the service reads."""


class SlowBodyError(RequestError):
    """The body did not arrive in time."""


class InvalidRequestError(RequestError):
    """The request breaks its schema, or does not fit the live bundle.

    Attributes:
        faults: the first ones; place (the path to the value), found, expected.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = faults[:MAX_FAULTS_SHOWN]
        first, more = faults[0], len(faults) - 1
        rest = f" (and {more} more)" if more else ""
        super().__init__(f"{first['place']}: {first['expected']}{rest}")


class InvalidBodyError(InvalidRequestError):
    """The body is invalid."""


class InvalidQueryError(InvalidRequestError):
    """The path or the query string is invalid."""


class UnknownFilterError(InvalidRequestError):
    """A filter names an attribute that the live bundle cannot be filtered by."""


class UnauthorizedError(RequestError):
    """The bearer token is missing or wrong."""


class NoItemEncoderError(RequestError):
    """The bundle has no encoder of item content."""


class QueueFullError(RequestError):
    """The request queue is full."""


class OutOfTimeError(RequestError):
    """The request waited in the queue for longer than the queue timeout."""


class NoConsumerError(RequestError):
    """Nobody consumes the request queue: the service starts, stops, or has failed."""


class BusyError(RequestError):
    """The executor has as much of this work as it takes."""
