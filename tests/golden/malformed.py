"""Requests that a service must refuse, or that are just within a limit."""

import json

from tests.golden.world import TOKEN

TEXTS = (  # what is sent to /retrieve in place of a good body
    "", " ", "null", "true", "1", '"text"', "[]", "[{}]", "{", "{}}", '{"k": 1,}', "{'k': 1}",
    '{"k": 0}', '{"k": -1}', '{"k": 1001}', '{"k": 1000000000000000000000}', '{"k": 1.5}',
    '{"k": 1.0}', '{"k": "5"}', '{"k": null}', '{"k": true}', '{"k": NaN}', '{"k": 3, "k": 2}',
    '{"K": 3}', '{"k": 3, "top": 1}', '{"k": 3, "history": "item-0"}',
    '{"k": 3, "history": null}', '{"k": 3, "history": [null]}', '{"k": 3, "history": [""]}',
    '{"k": 3, "history": [["item-0"]]}', '{"k": 3, "history": [1.5]}',
    '{"k": 3, "history": [true]}', '{"k": 3, "history": [18446744073709551616]}',
    '{"k": 3, "history": [18446744073709551615, -9223372036854775808]}',
    '{"k": 3, "history": ["a\\u0000b", "\\ud83d\\ude00"]}', '{"k": 3, "history": ["\\ud83d"]}',
    '{"k": 3, "user_id": ""}', '{"k": 3, "user_id": null}', '{"k": 3, "user_id": ["user-0"]}',
    '{"k": 3, "exclude": null}', '{"k": 3, "exclude": {"item-0": 1}}',
    '{"k": 3, "exclude_seen": 1}', '{"k": 3, "exclude_seen": "true"}',
    '{"k": 3, "filter": []}', '{"k": 3, "filter": null}',
    '{"k": 3, "filter": {"colour": ["red"]}}',
    '{"k": 3, "filter": {"parity": "odd"}}', '{"k": 3, "filter": {"parity": []}}',
    '{"k": 3, "filter": {"parity": [null]}}', '{"k": 3, "filter": {"parity": [0.5]}}',
    '{"k": 3, "filter": {"": ["odd"]}}', '{"k": 3, "filter": {"Parity": ["odd"], "mod": [1]}}',
    '{"k": 3, "include": ["vectors"]}', '{"k": 3, "include": "clusters"}',
    '{"k": 0, "history": [""], "exclude": [false], "more": 1, "filter": {"parity": []}}',
)  # fmt: skip
HEX = ("ff", "efbbbf7b7d", "7b226b223a20317d00", "7b22686973746f7279223a205b22ff225d7d")
OTHERS = (  # path and body of other calls
    ("/retrieve/batch", "{}"), ("/retrieve/batch", '{"queries": []}'),
    ("/retrieve/batch", '{"queries": [{"k": 1}, {"k": 0}, {"filter": {"colour": ["red"]}}]}'),
    ("/retrieve/batch", '{"queries": [{"k": 1}, {"k": 1, "filter": {"colour": ["red"]}}]}'),
    ("/retrieve/batch", '{"queries": {"k": 1}}'), ("/retrieve/batch", '[{"k": 1}]'),
    ("/embed", "{}"), ("/embed", '{"users": [], "items": []}'),
    ("/embed", '{"users": [{}], "items": [{}]}'), ("/embed", '{"users": [{"k": 1}]}'),
    ("/embed", '{"items": [{"look": [1, 2]}]}'), ("/embed", '{"items": [{"smell": [1]}]}'),
    ("/embed", '{"items": [{"words": [1e16, 0, 0]}]}'), ("/embed", '{"items": [[1, 2, 3]]}'),
    ("/embed", '{"items": [{"words": ["1", 0, 0]}, {"words": [1, 2]}]}'),
    ("/negatives", "{}"), ("/negatives", '{"positives": ["item-0"], "easy": 1, "seed": 1}'),
    ("/negatives", '{"positives": [], "easy": 1, "hard": 1, "seed": 1}'),
    ("/negatives", '{"positives": ["item-0"], "easy": 0, "hard": 0, "seed": 1}'),
    ("/negatives", '{"positives": ["item-0"], "easy": 1001, "hard": -1, "seed": 1}'),
    ("/negatives", '{"positives": ["item-0"], "easy": 1, "hard": 1, "seed": -1}'),
    ("/negatives", '{"positives": ["item-0"], "easy": 1, "hard": 1, "seed": 1.5}'),
)  # fmt: skip
PATHS = (
    ("GET", "/"), ("GET", "/retrieve"), ("PUT", "/retrieve"),
    ("DELETE", "/items/item-0/similar"),
    ("GET", "/retrieve/"), ("POST", "/Retrieve"), ("GET", "/items/item-0"), ("GET", "/items"),
    ("POST", "/bundle"), ("POST", "/clusters"), ("GET", "/negatives"), ("GET", "/nowhere?k=1"),
    ("HEAD", "/livez"), ("HEAD", "/readyz"), ("OPTIONS", "/retrieve"), ("GET", "/admin/denylist"),
    ("POST", "/admin/denylist"), ("GET", "/items//similar"), ("GET", "/items/%2F/similar"),
    ("GET", "/items/item-0/similar?k=0"), ("GET", "/items/item-0/similar?k=1001"),
    ("GET", "/items/item-0/similar?k=two"), ("GET", "/items/item-0/similar?k=1&k=2"),
    ("GET", "/items/item-0/similar?k=%201"), ("GET", "/items/item-0/similar?k="),
    ("GET", "/items/item-0/similar?k=2&top=1"),
    ("GET", "/items/item-0/similar?k=2&filter=parity"),
    ("GET", "/items/item-0/similar?k=2&filter=colour:red"),
    ("GET", "/items/item-0/similar?k=2&filter=:red"), ("GET", "/items/item-0/similar?exclude="),
    ("GET", "/items/item-0/similar?k=2&include=vectors"),
    ("GET", "/items/item-0/similar?item_id=1"),
    ("GET", "/items/item%2D0/similar?k=2"), ("GET", "/items/%FF/similar?k=2"),
    ("GET", "/items/item-0/similar?k=2&filter=tags:tag%201&filter=tags:tag+2"),
    ("GET", "/items/" + "n" * 513 + "/similar?k=2"),
)  # fmt: skip
LONG = (  # path, and a text repeated in a body: before, repeated, times, after
    ("/retrieve", ['{"k": 1}', " ", 1 << 15, ""]),
    ("/retrieve", ['{"k": 1, "history": [', "1,", 10_000, "1]}"]),
    ("/retrieve", ['{"k": 1, "history": [', "1,", 9_999, "1]}"]),
    ("/retrieve", ['{"k": 1, "exclude": [', "1,", 10_000, "1]}"]),
    ("/retrieve", ['{"k": 1, "history": [', "[],", 2_000, "1]}"]),
    ("/retrieve", ['{"k": 1, "user_id": "', "u", 513, '"}']),
    ("/retrieve", ['{"k": 1, "user_id": "', "\N{SNOWMAN}", 512, '"}']),
    ("/retrieve", ['{"k": 1, "filter": {"parity": [', "1,", 1_000, "1]}}"]),
    ("/retrieve", ["", "[", 30_000, ""]),
    ("/retrieve", ['{"k": 1, "filter": {"parity": ["', "v", 512, '"]}}']),
    ("/retrieve", ['{"k": 1, "filter": {"parity": ["', "v", 513, '"]}}']),
    ("/retrieve/batch", ['{"queries": [', '{"k": 1},', 256, '{"k": 1}]}']),
    ("/retrieve/batch", ['{"queries": [', '{"k": 0},', 255, '{"k": 0}]}']),
    ("/retrieve/batch", ['{"queries": [', '{"k": 1},', 15, '{"k": 1}]}']),
    ("/embed", ['{"users": [', "{},", 256, "{}]}"]),
    ("/negatives", ['{"easy": 0, "hard": 0, "positives": [', "1,", 10_000, "1]}"]),
    ("/negatives", ['{"easy": 999, "hard": 1, "positives": [', "1,", 1_000, "1]}"]),
)
ADMIN = (  # path, body, token
    ("/admin/denylist", '{"add": ["x"]}', None), ("/admin/denylist", '{"add": ["x"]}', "wrong"),
    ("/admin/denylist", "{}", TOKEN), ("/admin/denylist", '{"items": [], "add": ["x"]}', TOKEN),
    ("/admin/denylist", '{"items": [1.5]}', TOKEN), ("/admin/denylist", "no", None),
    ("/admin/clusters/current", '{"action": "pin"}', None),
    ("/admin/clusters/current", '{"action": "pin"}', TOKEN),
    ("/admin/clusters/current", '{"action": "pin", "version": "0123456789abcdef"}', TOKEN),
    ("/admin/clusters/current", '{"action": "unpin", "version": "0123456789abcdef"}', TOKEN),
    ("/admin/clusters/current", '{"action": "push"}', TOKEN),
)  # fmt: skip


def malformed_requests(ids):
    """Return them all; none changes what is live."""
    requests = [{"method": "POST", "path": "/retrieve", "body": text} for text in TEXTS]
    requests += [{"method": "POST", "path": "/retrieve", "hex": text} for text in HEX]
    requests += [{"method": "POST", "path": "/retrieve", "body": '{"k": 2}', "headers": headers}
                 for headers in ({"content-type": "text/plain"}, {"content-type": "x" * 300},
                             {"accept": "text/html"}, {"x-request-id": "mine"})]  # fmt: skip
    requests += [{"method": "POST", "path": path, "body": text} for path, text in OTHERS]
    requests += [{"method": method, "path": path} for method, path in PATHS]
    requests += [{"method": "POST", "path": path, "repeated": text} for path, text in LONG]
    requests += [{"method": "POST", "path": "/retrieve", "body": text, "chunked": True}
                 for text in ('{"k": 2}', '{"k": 0}', '{"k": 2}' + " " * 33_000)]  # fmt: skip
    requests.append({"method": "GET", "path": f"/items/item-0/similar?k=1&exclude={'x' * 70_000}"})
    many = json.dumps({"k": 2, "history": ids[:30], "exclude": ids})
    requests.append({"method": "POST", "path": "/retrieve", "body": many})
    requests += [_admin(*arguments) for arguments in ADMIN]
    return [*requests, _admin("/admin/rollback", '{"version": "last"}', TOKEN)]


def _admin(path, body, token):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    method = "POST" if path == "/admin/rollback" else "PUT"
    return {"method": method, "path": path, "body": body, "headers": headers}
