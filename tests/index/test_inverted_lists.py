"""A bundle whose index has inverted lists answers as one that is searched exactly."""

from dataclasses import replace

import numpy as np
import pytest

from index.ann.index import ItemIndex
from index.ann.probing import LIMITS
from index.bitmap import RowSet
from index.bundle.reader import open_bundle
from index.retriever import Question, Retriever, SimilarQuestion
from index.searching.scope import Scope
from index.searching.search import Ask, Search
from tests.handmade import publish_handmade

COUNT = 900


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    bundles = tmp_path_factory.mktemp("plain")
    return open_bundle(bundles / publish_handmade(bundles, count=COUNT))


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    bundles = tmp_path_factory.mktemp("listed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("index.ann.tuning.FLAT_LIMIT", COUNT - 1)
        version = publish_handmade(bundles, count=COUNT)
    return open_bundle(bundles / version)


def test_some_denied_items_among_the_best_make_nobody_search_again(listed, monkeypatch):
    query = listed.vectors[0]
    rows = np.argsort(-(listed.vectors @ query), kind="stable").astype(np.int32)
    denied, far = RowSet.from_rows(rows[:40:4], COUNT), rows[-25:]
    asked, search = [], ItemIndex.search
    monkeypatch.setattr(ItemIndex, "search", lambda *parts: asked.append(1) or search(*parts))
    ask = Ask(query, 40, far, Scope(denied.complement()))
    few = replace(LIMITS, few=20)
    (found,) = Search(listed.index, listed.vectors, few).find_quickly([ask])
    assert (len(asked), len(found[0])) == (1, 40)
    assert not denied.contains(found[0]).any()


@pytest.mark.parametrize(
    "question",
    [
        Question(50, history=["item-7", "item-9"]),
        Question(50, user_id="user-1"),
        Question(20, history=["item-8"], filter={"tags": ["tag 2"], "parity": ["even"]}),
        Question(50),
    ],
)
def test_the_same_question_finds_the_same_items(plain, listed, question):
    expected, found = (Retriever(one).find(question) for one in (plain, listed))
    assert found.fallback == expected.fallback
    if found.scores is None:
        assert found.item_ids == expected.item_ids
        return
    (prepared,) = Retriever(plain).prepare([question])
    own = plain.vectors[plain.items.rows_of(found.item_ids)] @ prepared.query
    np.testing.assert_allclose(found.scores, own, atol=1e-6)
    assert np.isin(found.item_ids, expected.item_ids).mean() > 0.8  # of an index so small
    seen = plain.items.ids_of(prepared.excluded)
    assert not set(found.item_ids) & set(seen)


def test_similar_items_are_found_by_the_items_own_vector(plain, listed):
    expected, found = (
        Retriever(one).similar(SimilarQuestion("item-123", 20)) for one in (plain, listed)
    )
    assert np.isin(found.item_ids, expected.item_ids).mean() > 0.8
    assert "item-123" not in found.item_ids
