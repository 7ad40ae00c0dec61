"""Helpers for stored denylists, in a file or in Redis."""

UNUSUAL_IDS = [
    "ünï",
    'a "quote"',
    "two\nlines",
    " spaced ",
    "tab\there",
    "\u2028",
    "007",
    "x" * 512,
]


def is_durable(store):
    return "denylist:current" not in store.location


def corrupt(store, redis, tmp_path, content):
    if not is_durable(store):
        redis.client.set("esans:denylist:current", content)
    else:
        (tmp_path / "denylist").write_bytes(content)
