"""Arrow tables of the generated shop."""

import numpy as np
import pyarrow as pa

from examples.shop import COLOUR_NAMES, Ints, Shop
from examples.shoppers import Tastes, Visits


def items_table(shop: Shop) -> pa.Table:
    """One row per item: id, title, department, category, colour, price."""
    categories = [shop.categories[row] for row in shop.category_rows]
    return pa.table(
        {
            "item_id": shop.item_ids,
            "title": shop.titles,
            "department": [category.department for category in categories],
            "category": [category.name for category in categories],
            "colour": [COLOUR_NAMES[row] for row in shop.colour_rows],
            "price": shop.prices,
        }
    )


def interactions_table(shop: Shop, visits: Visits, item_rows: Ints) -> pa.Table:
    """One row per interaction, oldest first."""
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
    for user_id, category_rows, colours, count, is_current in zip(
        _user_ids(len(tastes.counts)),
        tastes.categories,
        tastes.colours,
        tastes.counts,
        tastes.current(),
        strict=True,
    ):
        paths = [shop.categories[row].path for row in category_rows[:count]]
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
