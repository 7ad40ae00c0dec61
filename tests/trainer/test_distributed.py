"""Two ranks take the steps that one process takes; CPUs with gloo, two CUDA devices with NCCL."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.support.ranks import SAMPLERS, start_ranks, step_losses, unordered_losses
from tests.support.training_runs import DEADLINE_S

pytestmark = pytest.mark.e2e

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch detects fewer than 2 GPUs"),
    ],
)


@pytest.fixture(scope="module", params=["cpu", CUDA])
def device(request):
    return request.param


@pytest.fixture(scope="module")
def ranks(world, tmp_path_factory, device):
    """What each of two ranks computed."""
    folder = tmp_path_factory.mktemp("ranks")
    for process in start_ranks(str(world), str(folder), device):
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, output
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


def test_ranks_have_bitwise_equal_losses_and_weights(ranks):
    assert ranks[0] == ranks[1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ranks_have_losses_and_gradients_of_single_process(world_data, ranks, sampler, device):
    losses, _ = step_losses(world_data, device, sampler)
    assert not dist.is_initialized()
    np.testing.assert_allclose(ranks[0][sampler][0], losses, rtol=1e-4, atol=1e-6)


def test_ranks_equal_single_process_on_unordered_data(world_data, ranks, device):
    losses, _ = unordered_losses(world_data, device)
    np.testing.assert_allclose(ranks[0]["unordered"][0], losses, rtol=1e-4, atol=1e-6)


def test_ranks_swap_cluster_maps_at_the_same_step(ranks):
    swaps, versions, _ = ranks[1]["follow"]
    assert [step for step, _ in swaps] == [0, 6]
    assert versions == [swaps[0][1]] * 6 + [swaps[1][1]] * 21


def test_loss_not_finite_on_a_rank_is_an_error_on_all(ranks):
    assert [rank["diverges"] for rank in ranks] == [True, True]
