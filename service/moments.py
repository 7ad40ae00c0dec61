"""Moments, as bundles and cluster maps tell them."""

from datetime import UTC, datetime


def unix_time(moment: str) -> float:
    """Return ISO 8601 as seconds since 1970; without a zone it is taken as UTC."""
    parsed = datetime.fromisoformat(moment)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
