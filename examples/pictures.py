"""Small pictures of the items: the shape shows the department, the pattern the category.

Two items of one category and colour differ in size, position, rotation and shade.
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
    """Draw one picture per item, [items, SIDE, SIDE, 3]."""
    return np.stack(
        [
            draw_picture(
                SHAPES[shop.categories[category].department_row],
                PATTERNS[shop.categories[category].rank],
                COLOURS[COLOUR_NAMES[colour]],
                rng,
            )
            for category, colour in zip(shop.category_rows, shop.colour_rows, strict=True)
        ]
    )


def draw_picture(shape: Points, pattern: Mask, rgb: Colour, rng: np.random.Generator) -> Pixels:
    """Draw a shape in two tones of a colour, with small random distortions.

    Args:
        shape: [points, 2], within -1..1.
        pattern: [SIDE * FINE, SIDE * FINE], where the second tone goes.

    Returns:
        [SIDE, SIDE, 3].
    """
    angle, size = rng.normal(scale=0.08), rng.uniform(0.80, 0.98)
    shift = rng.normal(scale=0.04, size=2)
    first = np.clip(np.array(rgb) + rng.normal(scale=10, size=3), 0, 255)
    second = first * 0.55 if first.mean() > 110 else first * 0.5 + 120
    colours = np.stack([np.array(BACKGROUND), np.array(OUTLINE), first, second])
    codes = np.zeros(pattern.shape, dtype=np.intp)  # rows of `colours`
    codes[_cover(shape, angle, size, shift)] = 1
    inner = _cover(shape, angle, size * 0.88, shift)
    codes[inner] = 2 + pattern[inner]
    canvas = colours.take(codes, axis=0)
    small = canvas.reshape(SIDE, FINE, SIDE, FINE, 3).mean(axis=(1, 3))
    grain = rng.normal(scale=3, size=small.shape)
    return np.asarray(np.clip(small + grain, 0, 255), dtype=np.uint8)


def contact_sheet(shop: Shop, pictures: Pixels, per_category: int = 4) -> Image.Image:
    """Render some items of every category, one row per department."""
    scale, label, margin = 2, 14, 110
    tile = SIDE * scale
    wide, high = per_category * tile + 12, tile + label + 8
    ranks = 1 + max(category.rank for category in shop.categories)
    sheet = Image.new("RGB", (margin + ranks * wide, len(DEPARTMENT_NAMES) * high), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, department in enumerate(DEPARTMENT_NAMES):
        pen.text((6, row * high + high // 2 - 6), department, fill="black", font=font)
    for row, category in enumerate(shop.categories):
        left, top = margin + category.rank * wide, category.department_row * high
        pen.text((left, top), category.name, fill="black", font=font)
        items = shop.members[row][shop.members[row] >= 0][:per_category]
        for column, item in enumerate(items):
            picture = Image.fromarray(pictures[item]).resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + column * tile, top + label))
    return sheet


def _cover(shape: Points, angle: float, size: float, shift: Points) -> Mask:
    """Return the mask of the rotated, scaled and shifted shape, [SIDE * FINE, SIDE * FINE]."""
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = ((shape @ rotation) * size + shift + 1) * (SIDE * FINE / 2)
    mask = Image.new("1", (SIDE * FINE, SIDE * FINE))
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in corners], fill=1)
    return np.asarray(mask)
