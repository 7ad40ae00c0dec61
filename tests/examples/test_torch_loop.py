"""Users take items of their own parity; the cluster map does not depend on users."""

import re

import numpy as np
import pytest
import torch
from pyarrow import chunked_array, parquet, table

from examples.torch_loop import Tables, main, texts_of, train
from tests.support.http_caller import until
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import handmade_map, publish_handmade

ITEMS = [f"item-{row}" for row in range(40)]
USERS = [f"user-{row}" for row in range(16)]
STEPS = 60


def tastes(seed=0):
    """Each user takes 12 of the 20 items of the same parity."""
    rng = np.random.default_rng(seed)
    return [
        (user, ITEMS[row])
        for index, user in enumerate(USERS)
        for row in rng.choice(np.arange(index % 2, 40, 2), 12, replace=False)
    ]


@pytest.fixture(scope="module", autouse=True)
def single_thread():
    """Tiny tensors gain nothing from more threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    bundles = tmp_path_factory.mktemp("bundles")
    publish_handmade(bundles, clusters=handmade_map())
    with start_service(bundles) as (client, _):
        until(lambda: client.get("/clusters").status_code == 200, 30)
        yield client


def test_custom_loop_learns_from_served_negatives(client):
    torch.manual_seed(0)
    tables = Tables(USERS, ITEMS)
    losses = list(train(client, tastes(), tables, STEPS))
    assert len(losses) == STEPS
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.5
    scores = (tables.users(USERS) @ tables.items(ITEMS).T).detach().numpy()
    untaken = np.ones((16, 40), dtype=bool)
    for user, item in tastes():
        untaken[USERS.index(user), ITEMS.index(item)] = False
    alike = np.arange(16)[:, None] % 2 == np.arange(40) % 2
    assert scores[untaken & alike].mean() > scores[untaken & ~alike].mean()


def test_custom_loop_skips_items_unknown_to_the_service(client):
    torch.manual_seed(0)
    tables = Tables(USERS, [*ITEMS, "lost"])
    before = tables.items(["lost"]).detach().clone()
    losses = list(train(client, [*tastes(), ("user-0", "lost")], tables, steps=5))
    assert np.isfinite(losses).all()
    assert torch.equal(tables.items(["lost"]).detach(), before)


def test_command_trains_on_a_dataset_folder(client, tmp_path, capsys):
    users, items = zip(*tastes(), strict=True)
    parquet.write_table(
        table({"user_id": list(users), "item_id": list(items)}), tmp_path / "interactions.parquet"
    )
    parquet.write_table(table({"item_id": ITEMS}), tmp_path / "items.parquet")
    main(["--url", str(client.base_url), "--data", str(tmp_path), "--steps", "41"])
    first, *_, last = re.findall(r"loss ([\d.]+)", capsys.readouterr().out)
    assert float(last) < float(first)


def test_torch_loop_takes_integer_ids_as_text():
    assert texts_of(chunked_array([[1, 20], [3]])) == ["1", "20", "3"]
