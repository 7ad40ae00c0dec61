"""Someone else's PyTorch loop: two tables of embeddings, negatives from a running service.

    python -m examples.torch_loop --url http://localhost:8000 --data shop/

All that it needs of this project is `POST /negatives`. Its own catalogue must hold the items of
the service's. It subtracts log q, so it aims at the softmax over the whole catalogue; without
`- log_q` the map's own emphasis stays.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

WIDTH, BATCH, EASY, HARD, TEMPERATURE = 32, 64, 8, 8, 0.1

Pair = tuple[str, str]  # a user, and an item that this user took


def train(
    client: httpx.Client, pairs: Sequence[Pair], tables: "Tables", steps: int, seed: int = 0
) -> Iterator[float]:
    """Take steps; yield the loss of each."""
    optimizer = torch.optim.Adam(tables.parameters(), lr=0.02)
    chance, taken = random.Random(seed), set(pairs)
    for step in range(steps):
        batch = chance.sample(pairs, min(BATCH, len(pairs)))
        asked = {"positives": [item for _, item in batch], "easy": EASY, "hard": HARD}
        told = client.post("/negatives", json=asked | {"seed": step}).raise_for_status().json()
        known = [pair for pair in batch if pair[1] not in told.get("unknown_items", ())]
        if not known:
            continue  # the service knows none of these items
        loss = loss_of(tables, known, told, taken)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        yield loss.item()


def loss_of(tables: "Tables", batch: list[Pair], told: dict[str, Any], taken: set[Pair]) -> Tensor:
    """Return the cross-entropy of each positive among its own negatives."""
    drawn = [easy + hard for easy, hard in zip(told["easy"], told["hard"], strict=True)]
    log_q = torch.tensor(told["easy_log_counts"])  # [batch, easy]
    log_q = torch.cat([log_q, torch.tensor(told["hard_log_counts"])], dim=1)  # [batch, n]
    is_liked = [
        [(user, item) in taken for item in row] for (user, _), row in zip(batch, drawn, strict=True)
    ]
    queries = tables.users([user for user, _ in batch])  # [batch, width]
    own = (queries * tables.items([item for _, item in batch])).sum(-1) / TEMPERATURE
    others = (tables.items(drawn) @ queries[:, :, None]).squeeze(-1) / TEMPERATURE - log_q
    others = others.masked_fill(torch.tensor(is_liked), -torch.inf)  # masked, never redrawn
    logits = torch.cat([own[:, None], others], dim=1)  # [batch, 1 + n]
    return cross_entropy(logits, torch.zeros(len(batch), dtype=torch.long))


class Table(nn.Module):
    """A unit row for each id."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self.rows = {one: row for row, one in enumerate(ids)}
        self.vectors = nn.Embedding(len(ids), WIDTH)

    def forward(self, ids: Sequence[Any]) -> Tensor:
        """Return the rows of ids, or of lists of ids: a dimension more."""
        return normalize(self.vectors(torch.tensor(self._rows_of(ids))), dim=-1)

    def _rows_of(self, ids: Sequence[Any]) -> list[Any]:
        return [self.rows[one] if isinstance(one, str) else self._rows_of(one) for one in ids]


class Tables(nn.Module):
    """What is learned: a row for each user and each item."""

    def __init__(self, user_ids: Sequence[str], item_ids: Sequence[str]) -> None:
        super().__init__()
        self.users, self.items = Table(user_ids), Table(item_ids)


def main(arguments: list[str] | None = None) -> None:
    """Train on a dataset's folder; print the loss now and then."""
    parser = argparse.ArgumentParser(prog="python -m examples.torch_loop")
    parser.add_argument("--url", required=True, help="of the service")
    parser.add_argument("--data", type=Path, required=True, help="a folder of Parquet tables")
    parser.add_argument("--steps", type=int, default=1_000)
    asked = parser.parse_args(arguments)
    taken = pq.read_table(asked.data / "interactions.parquet")
    users, items = (taken[name].to_pylist() for name in ("user_id", "item_id"))
    catalogue = pq.read_table(asked.data / "items.parquet")["item_id"].to_pylist()
    tables = Tables(sorted(set(users)), catalogue)
    with httpx.Client(base_url=asked.url, timeout=30) as client:
        for step, loss in enumerate(
            train(client, list(zip(users, items, strict=True)), tables, asked.steps)
        ):
            if step % 20 == 0:
                print(f"step {step}: loss {loss:.3f}")


if __name__ == "__main__":
    main()
