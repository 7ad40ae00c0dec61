"""Handmade bundles that the golden requests are sent to."""

from tests.support.synthetic_bundle import handmade_map, publish_handmade

COUNT = 400
WORLDS = ("full", "bare", "none")
TOKEN = "golden-token"
BODY_LIMIT_BYTES = 1 << 15  # fits into the socket buffer: a rejected body can still be sent


def item_ids(count=COUNT):
    """Ids of differing length: numeric, non-ASCII, with reserved and control characters."""
    return [_item_id(row) for row in range(count)]


def _item_id(row):
    if row == 77:
        return "m" * 512  # the maximum length of an id
    styles = (
        f"item-{row}",
        f"{row}",
        f"sku/{row:06d}",
        f"Größe {row} \N{SNOWMAN}",
        f"\u54c1\u76ee{row}",
        f"a?b#c%{row}&d=e+f;g",
        f'q"\\{row}\n\t',
        f"{'long-' * (row % 13)}{row}",
        f"\N{SKIER}\u0301 {row} ",
    )
    return styles[row % len(styles)]


def publish(world, bundles):
    """Publish the bundle of a world: with everything optional, with nothing optional, or none."""
    bundles.mkdir(parents=True, exist_ok=True)
    if world == "full":
        ids = item_ids()
        clusters = handmade_map(ids=ids)
        publish_handmade(bundles, ids=ids, clusters=clusters, with_content=True)
    elif world == "bare":
        publish_handmade(bundles, count=60, seed=1, with_histories=False, with_metadata=False)
