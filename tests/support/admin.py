"""Calls of the admin endpoints."""

TOKEN = "a token"


def bearer(token=TOKEN):
    """Return the authorization header of a token; none for None."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def call_admin(caller, method, path, token=TOKEN, **options):
    """Call `/admin/<path>` of an app."""
    return caller.request(method, f"/admin/{path}", headers=bearer(token), **options)
