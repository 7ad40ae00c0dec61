"""Data-parallel training with torchrun: the ranks, and what they exchange.

Every rank computes its share of a training batch and applies the same update, so that all have
the same weights. Without torchrun there is one rank, and no process group is used.
"""

import os
import signal
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from index.errors import TrainingError

TIMEOUT = timedelta(hours=12)  # ranks wait while the main rank builds a cluster map or validates
MAIN = 0

Result = TypeVar("Result")
Key = TypeVar("Key", bound=Hashable)


@contextmanager
def join_ranks() -> Iterator[None]:
    """Join the process group that the environment of torchrun describes, for one block.

    The main rank alone prints. The first rank that fails raises its error; all others end with
    exit status 1 and print nothing.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun keeps the store
    shared, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    store = dist.PrefixStore(f"attempt {attempt}", shared)  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with ExitStack() as stack:
        if rank != MAIN:
            stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)  # also ends a wait for another rank
        try:
            with reporting_lost_rank():
                dist.init_process_group(
                    backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT
                )
            yield
            dist.destroy_process_group()
        except BaseException:
            if store.add("failed ranks", 1) > 1:
                raise SystemExit(1) from None
            raise


@contextmanager
def reporting_lost_rank() -> Iterator[None]:
    """Raise TrainingError if a collective fails, because another rank ended."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            f"torchrun: a rank lost the connection to another one, which ended or is unreachable "
            f"({str(error).split('. ')[0]}); see the output of torchrun for its exit status, then "
            "repeat the command to resume from the last checkpoint"
        ) from error


def num_ranks() -> int:
    """Return the number of ranks; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_rank() -> bool:
    """Return whether this rank prints, validates, writes checkpoints and publishes."""
    return num_ranks() == 1 or dist.get_rank() == MAIN


def cuda_device() -> torch.device:
    """Return the CUDA device of this rank; raises TrainingError if there are too few."""
    if num_ranks() == 1:
        return torch.device("cuda")
    number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= count:
        raise TrainingError(
            f"torchrun: found {count} CUDA devices for {number + 1} or more ranks on this node, "
            f"expected one for each; use --nproc-per-node {count}, or set training.device to cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def main_rank_first() -> Iterator[None]:
    """Let the main rank finish a block before the others begin it."""
    if not is_main_rank():
        on_main_rank(bool)  # waits for the main rank's call
    yield
    if is_main_rank():
        on_main_rank(bool)


def on_main_rank(call: Callable[[], Result]) -> Result:
    """Return the result of a call on the main rank, which others do not make, to all ranks."""
    if num_ranks() == 1:
        return call()
    results: list[Any] = [call() if is_main_rank() else None]
    with reporting_lost_rank():
        dist.broadcast_object_list(results, MAIN)
    return results[0]  # type: ignore[no-any-return]


def broadcast_tensors(tensors: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """Return the tensors of the main rank to all ranks, as tensors on the CPU."""
    if num_ranks() == 1:
        return dict(tensors)
    specs = on_main_rank(lambda: {key: (t.shape, t.dtype) for key, t in tensors.items()})
    received = {}
    for key, (shape, dtype) in specs.items():
        is_sent = is_main_rank()
        received[key] = (
            tensors[key].detach().cpu().contiguous() if is_sent else torch.empty(shape, dtype=dtype)
        )
        with reporting_lost_rank():
            dist.broadcast(received[key].reshape(-1).view(torch.uint8), MAIN)  # of any dtype
    return received


def share_of_rank(count: int) -> slice:
    """Return which of `count` rows this rank computes: contiguous, in rank order, maybe none."""
    rank, bounds = dist.get_rank() if num_ranks() > 1 else 0, _share_bounds(count)
    return slice(bounds[rank], bounds[rank + 1])


def gather_shares(rows: Tensor, count: int) -> Tensor:
    """Concatenate what the ranks computed for their shares of `count` rows, with gradient."""
    if num_ranks() == 1:
        return rows
    gathered: Tensor = _GatherShares.apply(rows, count)  # type: ignore[no-untyped-call]
    return gathered


def sum_over_ranks(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, without gradient."""
    if num_ranks() == 1:
        return value
    total = value.detach().clone(memory_format=torch.contiguous_format)
    with reporting_lost_rank():
        dist.all_reduce(total)
    return total


def sum_gradients(weights: Iterable[Tensor]) -> None:
    """Replace the gradients of weights by their sums over all ranks, bitwise equal on each."""
    if num_ranks() == 1:
        return
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    dense = [gradient for gradient in gradients if not gradient.is_sparse]
    total = sum_over_ranks(torch.cat([gradient.flatten() for gradient in dense]))
    parts = torch.split(total, [gradient.numel() for gradient in dense])
    for gradient, part in zip(dense, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    for gradient in gradients:
        if gradient.is_sparse:
            gradient.copy_(_sum_sparse(gradient.coalesce()))


class _GatherShares(torch.autograd.Function):
    """Every rank uses all rows, so the gradient of a share is summed over the ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, count: int) -> Tensor:  # noqa: ANN401  # torch's
        ctx.share = share_of_rank(count)
        return _gather(rows, [last - first for first, last in pairwise(_share_bounds(count))])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return sum_over_ranks(gradient)[ctx.share], None


def _share_bounds(count: int) -> list[int]:
    return [count * rank // num_ranks() for rank in range(num_ranks() + 1)]


def _sum_sparse(gradient: Tensor) -> Tensor:
    """Sum a coalesced row-sparse gradient over all ranks; NCCL has no sparse all-reduce."""
    rows, values = gradient.indices()[0], gradient.values()
    counts = _gather(torch.tensor([len(rows)], device=rows.device), [1] * num_ranks()).tolist()
    rows, values = _gather(rows, counts), _gather(values, counts)
    total = torch.sparse_coo_tensor(rows[None], values, gradient.shape, check_invariants=False)
    return total.coalesce()


def _gather(rows: Tensor, counts: list[int]) -> Tensor:
    """Concatenate the rows of all ranks in rank order, of which each has its own count."""
    longest = max(1, *counts)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    with reporting_lost_rank():
        dist.all_gather(gathered, padded)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])
