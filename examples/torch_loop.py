"""A custom PyTorch training loop with negatives from a running service.

    python -m examples.torch_loop --url http://localhost:8000 --data shop/

It trains two embedding tables and uses nothing of this project but `POST /negatives`. Its
catalogue must contain the items of the service. It subtracts log q, so it estimates the softmax
over the whole catalogue; without `- log_q` the proposal's own weighting remains.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

WIDTH, BATCH, EASY, HARD, TEMPERATURE = 32, 64, 8, 8, 0.1

Pair = tuple[str, str]  # user id, item id


def train(
    client: httpx.Client, pairs: Sequence[Pair], tables: "Tables", steps: int, seed: int = 0
) -> Iterator[float]:
    """Train for a number of steps; yield the loss of each."""
    optimizer = torch.optim.Adam(tables.parameters(), lr=0.02)
    rng, taken = random.Random(seed), set(pairs)
    for step in range(steps):
        batch = rng.sample(pairs, min(BATCH, len(pairs)))
        request: dict[str, object] = {
            "positives": [item for _, item in batch],
            "easy": EASY,
            "hard": HARD,
        }
        request["seed"] = step
        response = client.post("/negatives", json=request).raise_for_status().json()
        known = [pair for pair in batch if pair[1] not in response.get("unknown_items", ())]
        if not known:
            continue  # the service has none of these items
        loss = batch_loss(tables, known, response, taken)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        yield loss.item()


def batch_loss(
    tables: "Tables", batch: list[Pair], response: dict[str, Any], taken: set[Pair]
) -> Tensor:
    """Return the cross-entropy of each positive against its own negatives."""
    negatives = [easy + hard for easy, hard in zip(response["easy"], response["hard"], strict=True)]
    log_q = torch.tensor(response["easy_log_counts"])  # [batch, easy]
    log_q = torch.cat([log_q, torch.tensor(response["hard_log_counts"])], dim=1)  # [batch, n]
    is_positive = [
        [(user, item) in taken for item in row]
        for (user, _), row in zip(batch, negatives, strict=True)
    ]
    queries = tables.users([user for user, _ in batch])  # [batch, width]
    positive_logits = (queries * tables.items([item for _, item in batch])).sum(-1) / TEMPERATURE
    scores = (tables.items(negatives) @ queries[:, :, None]).squeeze(-1)
    negative_logits = scores / TEMPERATURE - log_q
    negative_logits = negative_logits.masked_fill(torch.tensor(is_positive), -torch.inf)
    logits = torch.cat([positive_logits[:, None], negative_logits], dim=1)  # [batch, 1 + n]
    return cross_entropy(logits, torch.zeros(len(batch), dtype=torch.long))


class Table(nn.Module):
    """Embedding table with a unit vector for each id."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self.rows = {item_id: row for row, item_id in enumerate(ids)}
        self.vectors = nn.Embedding(len(ids), WIDTH)

    def forward(self, ids: Sequence[Any]) -> Tensor:
        """Return the vectors of ids; nested lists of ids add a dimension."""
        return normalize(self.vectors(torch.tensor(self._rows_of(ids))), dim=-1)

    def _rows_of(self, ids: Sequence[Any]) -> list[Any]:
        return [self.rows[item] if isinstance(item, str) else self._rows_of(item) for item in ids]


class Tables(nn.Module):
    """User and item embedding tables."""

    def __init__(self, user_ids: Sequence[str], item_ids: Sequence[str]) -> None:
        super().__init__()
        self.users, self.items = Table(user_ids), Table(item_ids)


def texts_of(ids: pa.ChunkedArray) -> list[str]:
    """Return ids as the service has them: integers as text."""
    return [str(each) for each in ids.to_pylist()]


def main(arguments: list[str] | None = None) -> None:
    """Train on a dataset folder; print the loss every 20 steps."""
    parser = argparse.ArgumentParser(prog="python -m examples.torch_loop")
    parser.add_argument("--url", required=True, help="of the service")
    parser.add_argument("--data", type=Path, required=True, help="a folder of Parquet tables")
    parser.add_argument("--steps", type=int, default=1_000)
    args = parser.parse_args(arguments)
    interactions = pq.read_table(args.data / "interactions.parquet")
    users, items = (texts_of(interactions[name]) for name in ("user_id", "item_id"))
    catalogue = texts_of(pq.read_table(args.data / "items.parquet")["item_id"])
    tables = Tables(sorted(set(users)), catalogue)
    with httpx.Client(base_url=args.url, timeout=30) as client:
        for step, loss in enumerate(
            train(client, list(zip(users, items, strict=True)), tables, args.steps)
        ):
            if step % 20 == 0:
                print(f"step {step}: loss {loss:.3f}")


if __name__ == "__main__":
    main()
