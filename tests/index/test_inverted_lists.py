"""A bundle with inverted lists returns nearly the results of an exact index."""

from dataclasses import replace

import numpy as np
import pytest

from index.ann.index import ItemIndex
from index.ann.probing import LIMITS
from index.bitmap import RowSet
from index.bundle.reader import open_bundle
from index.search.filters import CompiledFilter
from index.search.query import Query, SearchResult
from index.search.retriever import Retriever
from index.search.searcher import Searcher
from tests.support.synthetic_bundle import publish_handmade, retrieve_single

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


def test_search_few_denied_items_needs_no_retry(listed, monkeypatch):
    query = listed.vectors[0]
    rows = np.argsort(-(listed.vectors @ query), kind="stable").astype(np.int32)
    denied, far = RowSet.from_rows(rows[:40:4], COUNT), rows[-25:]
    searches, search = [], ItemIndex.search
    monkeypatch.setattr(ItemIndex, "search", lambda *parts: searches.append(1) or search(*parts))
    result = SearchResult(listed.items, 40, query, excluded=far)
    searcher = Searcher(listed.index, listed.vectors, replace(LIMITS, max_scanned_rows=20))
    searcher.search([result], CompiledFilter(denied.complement()), is_bounded=True)
    assert result.is_complete
    assert (len(searches), len(result.rows)) == (1, 40)
    assert not denied.contains(result.rows).any()


@pytest.mark.parametrize(
    "query",
    [
        Query(50, history=["item-7", "item-9"]),
        Query(50, user_id="user-1"),
        Query(20, history=["item-8"], filter={"tags": ["tag 2"], "parity": ["even"]}),
        Query(50),
    ],
)
def test_retrieve_ivf_matches_exact_index(plain, listed, query):
    expected, result = (retrieve_single(Retriever(bundle), query) for bundle in (plain, listed))
    assert result.fallback == expected.fallback
    if result.scores is None:
        assert result.item_ids == expected.item_ids
        return
    own = plain.vectors[plain.items.rows_of(result.item_ids)] @ expected.vector
    np.testing.assert_allclose(result.scores, own, atol=1e-6)
    assert np.isin(result.item_ids, expected.item_ids).mean() > 0.8  # of an index so small
    seen = plain.items.ids_of(expected.excluded)
    assert not set(result.item_ids) & set(seen)


def test_retrieve_similar_ivf_matches_exact_index(plain, listed):
    expected, result = (
        retrieve_single(Retriever(bundle), Query(20, item_id="item-123"))
        for bundle in (plain, listed)
    )
    assert np.isin(result.item_ids, expected.item_ids).mean() > 0.8
    assert "item-123" not in result.item_ids
