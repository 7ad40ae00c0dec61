import pytest
import torch
from torch import nn

from trainer.checkpoint import optimizer_tensors, restore_optimizer
from trainer.lazy_adam import LazyAdam

ROWS = ([3, 1, 3], [1], [0, 5, 5, 5], [3, 0])  # used by each step, repeated rows included


def build_table(seed=0):
    torch.manual_seed(seed)
    return nn.Embedding(7, 4, sparse=True)


def take_steps(table, optimizer, steps):
    for rows in steps:
        optimizer.zero_grad()
        table(torch.as_tensor(rows)).sin().sum().backward()
        optimizer.step()


def test_lazy_adam_equals_sparse_adam_of_torch():
    table, expected = build_table(), build_table()
    take_steps(table, LazyAdam(table.parameters(), lr=0.1), ROWS)
    take_steps(expected, torch.optim.SparseAdam(expected.parameters(), lr=0.1), ROWS)
    assert torch.allclose(table.weight, expected.weight, atol=1e-6)
    assert not torch.allclose(table.weight, build_table().weight, atol=1e-6)


def test_lazy_adam_does_not_change_unused_rows():
    table = build_table()
    optimizer = LazyAdam(table.parameters(), lr=0.1)
    take_steps(table, optimizer, ROWS)
    before = [
        table.weight.detach().clone(),
        *map(torch.clone, optimizer_tensors(optimizer).values()),
    ]
    take_steps(table, optimizer, [[2], [2]])
    after = [table.weight.detach(), *optimizer_tensors(optimizer).values()]
    changed = [
        (left != right).reshape(7, -1).any(dim=1).tolist()
        for left, right in zip(before, after, strict=True)
        if left.ndim
    ]
    assert changed == [[row == 2 for row in range(7)]] * 3  # the weight and two moments


def test_lazy_adam_restored_continues_identically():
    whole, resumed = build_table(), build_table()
    take_steps(whole, LazyAdam(whole.parameters(), lr=0.1), ROWS)
    first, second = (LazyAdam(resumed.parameters(), lr=0.1) for _ in range(2))
    take_steps(resumed, first, ROWS[:2])
    restore_optimizer(second, optimizer_tensors(first))
    take_steps(resumed, second, ROWS[2:])
    assert torch.equal(whole.weight, resumed.weight)


def test_lazy_adam_without_gradient_changes_nothing():
    table = build_table()
    LazyAdam(table.parameters(), lr=0.1).step()
    assert torch.equal(table.weight, build_table().weight)


def test_lazy_adam_empty_gradient_changes_nothing():
    table = build_table()
    take_steps(table, LazyAdam(table.parameters(), lr=0.1), [torch.zeros(0, dtype=torch.int64)])
    assert torch.equal(table.weight, build_table().weight)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch detects no CUDA device")
def test_lazy_adam_on_cuda_equals_cpu():
    table, expected = build_table().cuda(), build_table()
    optimizer = LazyAdam(table.parameters(), lr=0.1)
    for rows in ROWS:
        optimizer.zero_grad()
        table(torch.tensor(rows, device="cuda")).sin().sum().backward()
        optimizer.step()
    take_steps(expected, LazyAdam(expected.parameters(), lr=0.1), ROWS)
    assert torch.allclose(table.weight.cpu(), expected.weight, atol=1e-6)
