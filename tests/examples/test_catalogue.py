from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from examples.catalogue import ShopSize, main, make_catalogue
from examples.taxonomy import COLOURS, DEPARTMENTS

SMALL = ShopSize(items=300, users=200, interactions=3_000)
MODALITIES = ("visual", "textual")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    make_catalogue(folder, SMALL, seed=7)
    return folder


def rows(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def features(folder, name):
    return np.load(folder / f"features_{name}.npy")


def paths(folder):
    return {
        row["item_id"]: f"{row['department']} > {row['shelf']}" for row in rows(folder, "items")
    }


def histories(folder):
    taken = {}
    for row in rows(folder, "interactions"):
        taken.setdefault(row["user_id"], []).append(row["item_id"])
    return taken


def shares_among_neighbours(folder, name, column):
    """How often the nearest other item has the same value in a column, and two items at all."""
    values = features(folder, name)
    present = np.flatnonzero(~np.isnan(values).any(axis=1))
    labels = np.array([row[column] for row in rows(folder, "items")])[present]
    units = values[present] / np.linalg.norm(values[present], axis=1, keepdims=True)
    likeness = units @ units.T
    np.fill_diagonal(likeness, -1)
    is_same = labels[:, None] == labels
    return (labels[likeness.argmax(axis=1)] == labels).mean(), is_same.mean()


def test_the_same_seed_writes_the_same_shop(folder, tmp_path):
    make_catalogue(tmp_path, SMALL, seed=7)
    for name in ("items", "interactions", "planted"):
        assert rows(tmp_path, name) == rows(folder, name)
    for name in MODALITIES:
        file = f"features_{name}.npy"
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_another_seed_writes_another_shop(folder, tmp_path):
    make_catalogue(tmp_path, SMALL, seed=8)
    for name in ("items", "interactions", "planted"):
        assert rows(tmp_path, name) != rows(folder, name)


def test_the_sizes_are_those_asked_for(folder):
    counts = [len(rows(folder, name)) for name in ("items", "planted", "interactions")]
    assert counts == [300, 200, 3_000]
    assert len(histories(folder)) == 200


def test_a_whole_shop_fills_every_shelf_and_has_the_sizes_promised(tmp_path):
    make_catalogue(tmp_path, ShopSize(), seed=7)
    counts = [len(rows(tmp_path, name)) for name in ("items", "planted", "interactions")]
    assert counts == [3_000, 4_000, 60_000]
    shelves = {f"{name} > {shelf}" for name in DEPARTMENTS for shelf in DEPARTMENTS[name]}
    assert set(paths(tmp_path).values()) == shelves
    assert [features(tmp_path, name).shape for name in MODALITIES] == [(3_000, 64)] * 2
    gaps = [np.isnan(features(tmp_path, name)).all(axis=1).sum() for name in MODALITIES]
    assert gaps == [90, 60]


def test_ids_are_unique_and_every_interaction_names_a_known_user_and_item(folder):
    item_ids = [row["item_id"] for row in rows(folder, "items")]
    user_ids = [row["user_id"] for row in rows(folder, "planted")]
    assert len(set(item_ids)) == len(item_ids)
    assert len(set(user_ids)) == len(user_ids)
    for row in rows(folder, "interactions"):
        assert row["item_id"] in set(item_ids)
        assert row["user_id"] in set(user_ids)


def test_nobody_takes_an_item_twice_or_fewer_than_five_items(folder):
    for taken in histories(folder).values():
        assert len(taken) >= 5
        assert len(set(taken)) == len(taken)


def test_the_log_is_in_order_of_time_and_spans_half_a_year(folder):
    moments = [row["timestamp"] for row in rows(folder, "interactions")]
    assert moments == sorted(moments)
    assert all(type(moment) is int for moment in moments)
    assert 150 < (moments[-1] - moments[0]) / 86_400 <= 180


def test_most_of_what_users_take_stands_on_the_shelves_of_their_tastes(folder):
    shelf, planted = paths(folder), rows(folder, "planted")
    tastes = {row["user_id"]: row["tastes"] for row in planted}
    log = rows(folder, "interactions")
    own = [row for row in log if shelf[row["item_id"]] in tastes[row["user_id"]]]
    assert len(own) >= 0.7 * len(log)
    assert all(len(set(row["tastes"])) == len(row["tastes"]) in (2, 3) for row in planted)


def test_users_end_on_their_current_tastes_and_did_not_begin_there(folder):
    shelf = paths(folder)
    current = {row["user_id"]: row["current_tastes"] for row in rows(folder, "planted")}

    def share(part):
        hits = [
            shelf[item] in current[user]
            for user, taken in histories(folder).items()
            for item in taken[part]
        ]
        return sum(hits) / len(hits)

    assert share(slice(-2, None)) > 0.6
    assert share(slice(0, 2)) < 0.4


def test_within_their_tastes_users_lean_to_their_colours(folder):
    shelf = paths(folder)
    colour = {row["item_id"]: row["colour"] for row in rows(folder, "items")}
    likes = {
        row["user_id"]: dict(zip(row["tastes"], row["colours"], strict=True))
        for row in rows(folder, "planted")
    }
    hits = [
        colour[item] == likes[user][shelf[item]]
        for user, taken in histories(folder).items()
        for item in taken
        if shelf[item] in likes[user]
    ]
    assert sum(hits) / len(hits) > 1.4 / len(COLOURS)


def test_a_few_items_of_a_shelf_make_a_large_part_of_its_sales(folder):
    shelf = paths(folder)
    sales = Counter(row["item_id"] for row in rows(folder, "interactions"))
    for path in set(shelf.values()):
        counts = sorted((sales[item] for item in shelf if shelf[item] == path), reverse=True)
        assert sum(counts[: len(counts) // 4]) > 0.35 * sum(counts)


def test_a_small_shop_still_has_goods_in_every_department(folder):
    assert {row["department"] for row in rows(folder, "items")} == set(DEPARTMENTS)


def test_titles_prices_and_shelves_fit_together(folder):
    for row in rows(folder, "items"):
        shelf = DEPARTMENTS[row["department"]][row["shelf"]]
        kind, colour = row["title"].split(", ")
        assert kind.endswith(shelf.nouns)
        assert any(f" {material} " in kind for material in shelf.materials)
        assert colour == row["colour"]
        assert shelf.usual_price / 5 < row["price"] < shelf.usual_price * 5


@pytest.mark.parametrize("name", MODALITIES)
def test_a_missing_row_is_all_nan_and_the_rest_is_finite(folder, name):
    values = features(folder, name)
    is_missing = np.isnan(values).all(axis=1)
    assert (values.dtype, values.shape) == (np.float32, (300, 64))
    assert np.isfinite(values[~is_missing]).all()
    assert is_missing.sum() == {"visual": 9, "textual": 6}[name]


@pytest.mark.parametrize("name", MODALITIES)
@pytest.mark.parametrize("column", ["shelf", "colour"])
def test_neighbours_share_shelf_and_colour_far_more_often_than_chance(folder, name, column):
    near, chance = shares_among_neighbours(folder, name, column)
    assert near > 2 * chance


def test_the_readme_says_that_nothing_is_real_and_how_to_make_it_again(folder):
    text = (folder / "README.txt").read_text(encoding="utf-8")
    assert text.startswith("GENERATED")
    assert "--items 300 --users 200 --interactions 3000 --seed 7" in text


@pytest.mark.parametrize("name", ["interactions.parquet", "items.csv", "README.txt"])
def test_files_from_elsewhere_are_not_written_over(tmp_path, name):
    (tmp_path / name).write_text("a real log")
    with pytest.raises(FileExistsError, match="may be real data, so give another folder"):
        make_catalogue(tmp_path, SMALL, seed=7)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "a real log"


def test_a_generated_shop_may_be_written_over(tmp_path):
    for seed in (1, 2):
        make_catalogue(tmp_path, ShopSize(items=160, users=20, interactions=100), seed)
    assert "--seed 2" in (tmp_path / "README.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((159, 10, 50), "159 items: at least 160"),
        ((160, 0, 0), "0 users"),
        ((160, 10, 49), "between 50"),
        ((160, 10, 161), "and 160"),
    ],
)
def test_a_size_that_cannot_be_filled_is_refused_with_the_bounds(sizes, words):
    with pytest.raises(ValueError, match=words):
        ShopSize(*sizes)


def test_the_smallest_shop_with_the_keenest_users_can_be_made(tmp_path):
    make_catalogue(tmp_path, ShopSize(items=160, users=50, interactions=800), seed=0)
    assert all(len(set(taken)) == len(taken) for taken in histories(tmp_path).values())


def test_the_command_line_makes_the_shop_and_a_sheet_of_pictures(tmp_path, capsys):
    words = ["--items", "160", "--users", "20", "--interactions", "120", "--pictures"]
    main([str(tmp_path), *words])
    assert "160 items, 20 users, 120 visits" in capsys.readouterr().out
    assert (tmp_path / "pictures.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line_explains_an_impossible_size_in_words(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--interactions", "3"])
    assert "3 interactions: between 20000" in capsys.readouterr().err
