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
        row["item_id"]: f"{row['department']} > {row['category']}" for row in rows(folder, "items")
    }


def histories(folder):
    taken = {}
    for row in rows(folder, "interactions"):
        taken.setdefault(row["user_id"], []).append(row["item_id"])
    return taken


def shares_among_neighbours(folder, name, column):
    """Share of nearest neighbours, and of all pairs, with the same value in a column."""
    values = features(folder, name)
    present = np.flatnonzero(~np.isnan(values).any(axis=1))
    labels = np.array([row[column] for row in rows(folder, "items")])[present]
    units = values[present] / np.linalg.norm(values[present], axis=1, keepdims=True)
    likeness = units @ units.T
    np.fill_diagonal(likeness, -1)
    is_same = labels[:, None] == labels
    return (labels[likeness.argmax(axis=1)] == labels).mean(), is_same.mean()


def test_catalogue_same_seed_same_data(folder, tmp_path):
    make_catalogue(tmp_path, SMALL, seed=7)
    for name in ("items", "interactions", "planted"):
        assert rows(tmp_path, name) == rows(folder, name)
    for name in MODALITIES:
        file = f"features_{name}.npy"
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_catalogue_other_seed_other_data(folder, tmp_path):
    make_catalogue(tmp_path, SMALL, seed=8)
    for name in ("items", "interactions", "planted"):
        assert rows(tmp_path, name) != rows(folder, name)


def test_catalogue_has_requested_sizes(folder):
    counts = [len(rows(folder, name)) for name in ("items", "planted", "interactions")]
    assert counts == [300, 200, 3_000]
    assert len(histories(folder)) == 200


def test_default_catalogue_fills_every_category(tmp_path):
    make_catalogue(tmp_path, ShopSize(), seed=7)
    counts = [len(rows(tmp_path, name)) for name in ("items", "planted", "interactions")]
    assert counts == [3_000, 4_000, 60_000]
    expected = {f"{name} > {category}" for name in DEPARTMENTS for category in DEPARTMENTS[name]}
    assert set(paths(tmp_path).values()) == expected
    assert [features(tmp_path, name).shape for name in MODALITIES] == [(3_000, 64)] * 2
    gaps = [np.isnan(features(tmp_path, name)).all(axis=1).sum() for name in MODALITIES]
    assert gaps == [90, 60]


def test_interactions_reference_known_unique_ids(folder):
    item_ids = [row["item_id"] for row in rows(folder, "items")]
    user_ids = [row["user_id"] for row in rows(folder, "planted")]
    assert len(set(item_ids)) == len(item_ids)
    assert len(set(user_ids)) == len(user_ids)
    for row in rows(folder, "interactions"):
        assert row["item_id"] in set(item_ids)
        assert row["user_id"] in set(user_ids)


def test_histories_have_five_distinct_items_or_more(folder):
    for taken in histories(folder).values():
        assert len(taken) >= 5
        assert len(set(taken)) == len(taken)


def test_interactions_are_sorted_and_span_half_a_year(folder):
    timestamps = [row["timestamp"] for row in rows(folder, "interactions")]
    assert timestamps == sorted(timestamps)
    assert all(type(timestamp) is int for timestamp in timestamps)
    assert 150 < (timestamps[-1] - timestamps[0]) / 86_400 <= 180


def test_most_interactions_match_the_users_tastes(folder):
    category_of, planted = paths(folder), rows(folder, "planted")
    tastes = {row["user_id"]: row["tastes"] for row in planted}
    log = rows(folder, "interactions")
    own = [row for row in log if category_of[row["item_id"]] in tastes[row["user_id"]]]
    assert len(own) >= 0.7 * len(log)
    assert all(len(set(row["tastes"])) == len(row["tastes"]) in (2, 3) for row in planted)


def test_last_interactions_match_current_tastes(folder):
    category_of = paths(folder)
    current = {row["user_id"]: row["current_tastes"] for row in rows(folder, "planted")}

    def share(part):
        hits = [
            category_of[item] in current[user]
            for user, taken in histories(folder).items()
            for item in taken[part]
        ]
        return sum(hits) / len(hits)

    assert share(slice(-2, None)) > 0.6
    assert share(slice(0, 2)) < 0.4


def test_interactions_prefer_the_users_colours(folder):
    category_of = paths(folder)
    colour = {row["item_id"]: row["colour"] for row in rows(folder, "items")}
    likes = {
        row["user_id"]: dict(zip(row["tastes"], row["colours"], strict=True))
        for row in rows(folder, "planted")
    }
    hits = [
        colour[item] == likes[user][category_of[item]]
        for user, taken in histories(folder).items()
        for item in taken
        if category_of[item] in likes[user]
    ]
    assert sum(hits) / len(hits) > 1.4 / len(COLOURS)


def test_sales_within_a_category_are_long_tailed(folder):
    category_of = paths(folder)
    sales = Counter(row["item_id"] for row in rows(folder, "interactions"))
    for path in set(category_of.values()):
        counts = sorted(
            (sales[item] for item in category_of if category_of[item] == path), reverse=True
        )
        assert sum(counts[: len(counts) // 4]) > 0.35 * sum(counts)


def test_small_catalogue_has_every_department(folder):
    assert {row["department"] for row in rows(folder, "items")} == set(DEPARTMENTS)


def test_titles_and_prices_fit_their_category(folder):
    for row in rows(folder, "items"):
        template = DEPARTMENTS[row["department"]][row["category"]]
        kind, colour = row["title"].split(", ")
        assert kind.endswith(template.nouns)
        assert any(f" {material} " in kind for material in template.materials)
        assert colour == row["colour"]
        assert template.usual_price / 5 < row["price"] < template.usual_price * 5


@pytest.mark.parametrize("name", MODALITIES)
def test_missing_features_are_nan_others_finite(folder, name):
    values = features(folder, name)
    is_missing = np.isnan(values).all(axis=1)
    assert (values.dtype, values.shape) == (np.float32, (300, 64))
    assert np.isfinite(values[~is_missing]).all()
    assert is_missing.sum() == {"visual": 9, "textual": 6}[name]


@pytest.mark.parametrize("name", MODALITIES)
@pytest.mark.parametrize("column", ["category", "colour"])
def test_feature_neighbours_share_category_and_colour(folder, name, column):
    near, chance = shares_among_neighbours(folder, name, column)
    assert near > 2 * chance


def test_readme_marks_generated_data_and_its_command(folder):
    text = (folder / "README.txt").read_text(encoding="utf-8")
    assert text.startswith("GENERATED")
    assert "--items 300 --users 200 --interactions 3000 --seed 7" in text


@pytest.mark.parametrize("name", ["interactions.parquet", "items.csv", "README.txt"])
def test_make_catalogue_refuses_to_overwrite_other_files(tmp_path, name):
    (tmp_path / name).write_text("a real log")
    with pytest.raises(FileExistsError, match="may be real data, so give another folder"):
        make_catalogue(tmp_path, SMALL, seed=7)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "a real log"


def test_make_catalogue_overwrites_a_generated_shop(tmp_path):
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
def test_shop_size_out_of_bounds_is_rejected(sizes, words):
    with pytest.raises(ValueError, match=words):
        ShopSize(*sizes)


def test_smallest_catalogue_with_most_active_users(tmp_path):
    make_catalogue(tmp_path, ShopSize(items=160, users=50, interactions=800), seed=0)
    assert all(len(set(taken)) == len(taken) for taken in histories(tmp_path).values())


def test_command_writes_shop_and_picture_sheet(tmp_path, capsys):
    words = ["--items", "160", "--users", "20", "--interactions", "120", "--pictures"]
    main([str(tmp_path), *words])
    assert "160 items, 20 users, 120 visits" in capsys.readouterr().out
    assert (tmp_path / "pictures.png").read_bytes().startswith(b"\x89PNG")


def test_command_reports_an_impossible_size(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--interactions", "3"])
    assert "3 interactions: between 20000" in capsys.readouterr().err
