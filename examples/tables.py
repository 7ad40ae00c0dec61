"""The generated shop as tables, in the columns that people and the trainer read."""

import numpy as np
import pyarrow as pa

from examples.shop import COLOUR_NAMES, Ints, Shop
from examples.shoppers import Tastes, Visits


def items_table(shop: Shop) -> pa.Table:
    """One row per item: id, title, department, shelf, colour, price."""
    places = [shop.places[shelf] for shelf in shop.shelf_rows]
    return pa.table(
        {
            "item_id": shop.item_ids,
            "title": shop.titles,
            "department": [place.department for place in places],
            "shelf": [place.name for place in places],
            "colour": [COLOUR_NAMES[row] for row in shop.colour_rows],
            "price": shop.prices,
        }
    )


def interactions_table(shop: Shop, visits: Visits, item_rows: Ints) -> pa.Table:
    """One row per interaction, oldest first, as a log would have it."""
    order = np.lexsort((visits.steps, visits.users, visits.timestamps))
    user_ids, item_ids = _user_ids(visits.users.max() + 1), shop.item_ids
    return pa.table(
        {
            "user_id": [user_ids[row] for row in visits.users[order]],
            "item_id": [item_ids[row] for row in item_rows[order]],
            "timestamp": visits.timestamps[order],
        }
    )


def planted_table(shop: Shop, tastes: Tastes) -> pa.Table:
    """One row per user: the tastes in order, their colours, and those current at the end."""
    rows = []
    for user_id, shelves, colours, count, is_current in zip(
        _user_ids(len(tastes.counts)),
        tastes.shelves,
        tastes.colours,
        tastes.counts,
        tastes.current(),
        strict=True,
    ):
        paths = [shop.places[shelf].path for shelf in shelves[:count]]
        rows.append(
            {
                "user_id": user_id,
                "tastes": paths,
                "colours": [COLOUR_NAMES[row] for row in colours[:count]],
                "current_tastes": [
                    path for path, now in zip(paths, is_current, strict=False) if now
                ],
            }
        )
    return pa.Table.from_pylist(rows)


def _user_ids(count: int) -> list[str]:
    return [f"user-{row:05d}" for row in range(count)]
