import pyarrow as pa

from trainer.esans.columns import first_labels, title_column


def test_the_first_of_several_values_is_the_label():
    listed = pa.table({"genres": [["x", "y"], [], None, ["z"]]})
    assert first_labels(listed, "genres") == ["x", None, None, "z"]
    spelled = pa.table({"genres": ["x|y", "", None, "z"]})
    assert first_labels(spelled, "genres") == ["x", None, None, "z"]


def test_an_item_is_named_by_its_title_else_by_its_id():
    assert title_column(pa.table({"item_id": ["a"], "Title": ["b"]})) == "Title"
    assert title_column(pa.table({"item_id": ["a"], "price": [1]})) == "item_id"
