"""Who may ask: whoever sends the bearer token."""

import hmac

from starlette.requests import Request

from index.errors import RequestError

SCHEME = b"bearer "


class UnauthorizedError(RequestError):
    """The bearer token is missing or wrong."""


def check_token(request: Request, token: str) -> None:
    """Let through who sent the token, compared in constant time.

    Raises UnauthorizedError.
    """
    said = request.headers.get("authorization", "").encode("latin-1", errors="replace")
    is_bearer = said[: len(SCHEME)].lower() == SCHEME
    if not hmac.compare_digest(said[len(SCHEME) :].strip(), token.encode()) or not is_bearer:
        raise UnauthorizedError(
            f"{request.method} {request.scope['path']}: the bearer token is missing or wrong; "
            "send `Authorization: Bearer TOKEN` with the ESANS_ADMIN_TOKEN of this service"
        )
