"""Small pictures of the goods: the shape tells the department, the pattern the shelf.

Two goods of one shelf and colour differ in size, place, turn and shade, as photographs do.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from examples.shapes import FINE, PATTERNS, SHAPES, SIDE, Mask, Points
from examples.shop import COLOUR_NAMES, DEPARTMENT_NAMES, Shop
from examples.taxonomy import COLOURS, Colour

Pixels = NDArray[np.uint8]

BACKGROUND = (228, 232, 236)
OUTLINE = (60, 60, 66)


def draw_pictures(shop: Shop, rng: np.random.Generator) -> Pixels:
    """[items, SIDE, SIDE, 3] one picture per item, in row order."""
    return np.stack(
        [
            draw_picture(
                SHAPES[shop.places[shelf].department_row],
                PATTERNS[shop.places[shelf].rank],
                COLOURS[COLOUR_NAMES[colour]],
                rng,
            )
            for shelf, colour in zip(shop.shelf_rows, shop.colour_rows, strict=True)
        ]
    )


def draw_picture(shape: Points, pattern: Mask, rgb: Colour, rng: np.random.Generator) -> Pixels:
    """[SIDE, SIDE, 3] a shape in two tones of a colour, laid down by a slightly unsteady hand.

    shape    [points, 2]  within -1..1
    pattern  [SIDE * FINE, SIDE * FINE]  where the second tone goes
    """
    turn, size = rng.normal(scale=0.08), rng.uniform(0.80, 0.98)
    shift = rng.normal(scale=0.04, size=2)
    first = np.clip(np.array(rgb) + rng.normal(scale=10, size=3), 0, 255)
    second = first * 0.55 if first.mean() > 110 else first * 0.5 + 120
    tones = np.where(pattern[..., None], second, first)
    canvas = np.full_like(tones, BACKGROUND)
    canvas[_cover(shape, turn, size, shift)] = OUTLINE
    inner = _cover(shape, turn, size * 0.88, shift)
    canvas[inner] = tones[inner]
    small = canvas.reshape(SIDE, FINE, SIDE, FINE, 3).mean(axis=(1, 3))
    grain = rng.normal(scale=3, size=small.shape)
    return np.asarray(np.clip(small + grain, 0, 255), dtype=np.uint8)


def contact_sheet(shop: Shop, pictures: Pixels, per_shelf: int = 4) -> Image.Image:
    """Lay out some goods of every shelf, a department a row, for people to look at."""
    scale, label, margin = 2, 14, 110
    tile = SIDE * scale
    wide, high = per_shelf * tile + 12, tile + label + 8
    ranks = 1 + max(place.rank for place in shop.places)
    sheet = Image.new("RGB", (margin + ranks * wide, len(DEPARTMENT_NAMES) * high), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, department in enumerate(DEPARTMENT_NAMES):
        pen.text((6, row * high + high // 2 - 6), department, fill="black", font=font)
    for shelf, place in enumerate(shop.places):
        left, top = margin + place.rank * wide, place.department_row * high
        pen.text((left, top), place.name, fill="black", font=font)
        rows = shop.members[shelf][shop.members[shelf] >= 0][:per_shelf]
        for column, item in enumerate(rows):
            picture = Image.fromarray(pictures[item]).resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + column * tile, top + label))
    return sheet


def _cover(shape: Points, turn: float, size: float, shift: Points) -> Mask:
    """[SIDE * FINE, SIDE * FINE] the pixels within the turned, sized and shifted shape."""
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = ((shape @ spin) * size + shift + 1) * (SIDE * FINE / 2)
    mask = Image.new("1", (SIDE * FINE, SIDE * FINE))
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in corners], fill=1)
    return np.asarray(mask)
