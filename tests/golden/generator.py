"""Generator of the golden requests, from a seeded rng; used only when recording."""

import json
from urllib.parse import quote

import numpy as np

from tests.golden.malformed import malformed_requests
from tests.golden.world import TOKEN, item_ids

FILTERS = {
    "parity": ["even", "odd", "neither"],
    "hundred": ["0", "1", 0, 1],
    "tags": [f"tag {number}" for number in range(6)],
    "odd": [True, "true", "false"],
    "mood": ["glad"],
}
USERS = ["user-0", "user-1", "user-2", "stranger", "", "user-0 ", 7]
COUNTS = [1, 2, 3, 5, 8, 13, 20]
SEEN_LONG = 60


def post(path, **body):
    return {"method": "POST", "path": path, "body": json.dumps(body, ensure_ascii=False)}


def put(path, **body):
    headers = {"authorization": f"Bearer {TOKEN}"}
    return {"method": "PUT", "path": path, "body": json.dumps(body), "headers": headers}


def get(path):
    return {"method": "GET", "path": path}


def generate(total=500, seed=20_260_131):
    """Return requests by world; the same arguments return the same requests."""
    sampler = RequestSampler(np.random.default_rng(seed))
    ids = sampler.ids
    full = [put("/admin/denylist", items=[*ids[5:60:6], "never heard of"])]
    full += [get("/bundle"), get("/clusters"), get("/livez"), get("/readyz"), get("/health")]
    full += [post("/retrieve"), post("/retrieve", history=ids[3:9], k=1000)]
    full += [post("/retrieve", user_id="user-1", k=1000, exclude_seen=False, exclude=ids[:100])]
    full += [get("/items/item-9/similar?k=1000"), get("/items/item-9/similar")]
    full += malformed_requests(ids)
    bare = [sampler.retrieve(bare=True) for _ in range(25)]
    bare += [get("/bundle"), get("/clusters"), post("/negatives", positives=["a"], easy=1, hard=1)]
    bare += [post("/embed", items=[{}]), post("/embed", users=[{"history": ["item-1"]}])]
    bare += [post("/retrieve", k=3, filter={"parity": ["odd"]}), get("/items/item-3/similar?k=4")]
    bare += [post("/retrieve", k=3, include=["clusters", "attributes"])]
    none = [post("/retrieve", k=3), post("/retrieve/batch", queries=[{"k": 1}]), get("/bundle")]
    none += [get("/items/x/similar"), post("/embed", users=[{}]), get("/readyz"), get("/clusters")]
    none += [post("/negatives", positives=["a"], easy=1, hard=1), put("/admin/denylist", add=["a"])]
    makers = [sampler.retrieve] * 9 + [sampler.similar] * 3
    makers += [sampler.batch, sampler.embed_users, sampler.embed_items, sampler.negatives] * 2
    num_varied = total - len(full) - len(bare) - len(none) - 3
    varied = [makers[number % len(makers)]() for number in range(num_varied)]
    varied.insert(num_varied // 2, put("/admin/denylist", add=ids[100:120], remove=ids[5:20]))
    varied += [put("/admin/denylist", items=[]), sampler.retrieve()]
    return {"full": full + varied, "bare": bare, "none": none}


class RequestSampler:
    """Samples random valid requests."""

    def __init__(self, rng):
        self._rng = rng
        self.ids = item_ids()

    def choice(self, values):
        return values[int(self._rng.integers(len(values)))]

    def chance(self, share):
        return bool(self._rng.random() < share)

    def items(self, most, least=0):
        """Sample item ids: some duplicates, some unknown, some as integers."""
        chosen = [self.choice(self.ids) for _ in range(int(self._rng.integers(least, most + 1)))]
        chosen = [
            int(item_id) if item_id.isdigit() and self.chance(0.5) else item_id
            for item_id in chosen
        ]
        if chosen and self.chance(0.3):
            chosen.append(self.choice(chosen))
        if self.chance(0.2):
            chosen.insert(0, f"unknown {int(self._rng.integers(100))}")
        return chosen

    def count(self):
        if self.chance(0.03):
            return self.choice([399, 400, 401, 1000])
        return self.choice([*COUNTS, 50] if self.chance(0.2) else COUNTS)

    def filter(self):
        names = [name for name in FILTERS if self.chance(0.02 if name == "mood" else 0.2)]
        return {name: [self.choice(FILTERS[name]) for _ in range(2)] for name in names}

    def retrieve_body(self, bare=False):
        history = self.items(SEEN_LONG if self.chance(0.1) else 6)
        if bare:
            history = [f"item-{int(self._rng.integers(70))}" for _ in range(3)]
        includes = (["clusters"], ["attributes"], ["clusters", "attributes"])
        options = {
            "history": (0.75, history),
            "user_id": (0.35, self.choice(USERS)),
            "k": (0.95, self.count()),
            "exclude": (0.3, self.items(30)),
            "exclude_seen": (0.25, self.chance(0.3)),
            "filter": (0.0 if bare else 0.35, self.filter()),
            "include": (0.3, self.choice(includes)),
        }
        return {name: value for name, (share, value) in options.items() if self.chance(share)}

    def retrieve(self, bare=False):
        return post("/retrieve", **self.retrieve_body(bare))

    def batch(self):
        queries = [self.retrieve_body() for _ in range(int(self._rng.integers(1, 7)))]
        for query in queries:
            query["k"] = min(query.get("k", 10), 20)
            query["user_id"] = query.get("user_id") or "user-1"
        return post("/retrieve/batch", queries=queries)

    def similar(self):
        item = self.choice(self.ids) if self.chance(0.9) else "unknown/item"
        parts = [f"k={self.count()}"] if self.chance(0.9) else []
        parts += [f"exclude={quote(str(item_id), safe='')}" for item_id in self.items(4)]
        for name, values in self.filter().items():
            parts += [
                f"filter={quote(f'{name}:{str(value).lower()}', safe='')}" for value in values
            ]
        parts += [f"include={field}" for field in ("clusters", "attributes") if self.chance(0.2)]
        query = f"?{'&'.join(parts)}" if parts else ""
        return get(f"/items/{quote(item, safe='')}/similar{query}")

    def embed_users(self):
        users = [
            {key: body[key] for key in ("history", "user_id") if body.get(key)}
            for body in (self.retrieve_body() for _ in range(3))
        ]
        return post("/embed", users=users)

    def embed_items(self):
        return post("/embed", items=[self._features() for _ in range(2)])

    def _features(self):
        features = {}
        if self.chance(0.8):
            features["look"] = self._numbers(8)
        if self.chance(0.7):
            features["words"] = self.choice([self._numbers(3), [0, 0, 0], None])
        return features

    def _numbers(self, width):
        return [round(float(number), 3) for number in self._rng.normal(size=width)]

    def negatives(self):
        easy, hard = (int(self._rng.integers(0, 5)) for _ in range(2))
        positives = [str(item_id) for item_id in self.items(4)]
        seed = int(self._rng.integers(1 << 40))
        return post("/negatives", positives=positives, easy=easy, hard=hard, seed=seed)
