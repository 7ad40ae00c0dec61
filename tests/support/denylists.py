"""Helpers for stored denylists, in a file or in Redis."""


def is_durable(store):
    return "denylist:current" not in store.location


def corrupt(store, redis, tmp_path, content):
    if not is_durable(store):
        redis.client.set("esans:denylist:current", content)
    else:
        (tmp_path / "denylist").write_bytes(content)
