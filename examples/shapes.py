"""Shapes of the pictures: an outline per department, a pattern per category.

Outlines lie within -1..1 or a little beyond, down is positive; patterns are on the fine grid.
"""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIDE = 32  # pixels of a finished picture
FINE = 3  # drawn this many times larger, then averaged: smooth edges


def _wheel(radii: list[float], start: float = -0.25) -> Points:
    """Points at these radii around the origin; `start` in full turns, -0.25 is the top."""
    angles = 2 * np.pi * (np.arange(len(radii)) / len(radii) + start)
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 60)
    across = 16 * np.sin(t) ** 3
    down = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([across, down], axis=1) / 17


def _crescent() -> Points:
    outer = _wheel([1.0] * 60, start=0.0)[8:53]
    inner = outer * 0.72 + np.array([0.34, 0.0])
    return np.concatenate([outer, inner[::-1]])


def _cross(arm: float = 0.38, tip: float = 0.95) -> Points:
    quarter = np.array([-arm - 1j * tip, arm - 1j * tip, arm - 1j * arm])
    points = np.concatenate([quarter * 1j**rotation for rotation in range(4)])
    return np.stack([points.real, points.imag], axis=1)


def _corners(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=np.float64)


def _bands(across: NDArray[np.int64], width: int) -> Mask:
    return np.equal(across // (width * FINE) % 2, 0)


_Y, _X = np.indices((SIDE * FINE, SIDE * FINE))
_RADIUS = np.hypot(_X - SIDE * FINE / 2, _Y - SIDE * FINE / 2).astype(np.int64)

SHAPES: tuple[Points, ...] = (  # one per department
    _wheel([0.95] * 48),  # disc
    _wheel([1.1] * 3) + np.array([0, 0.2]),  # triangle
    _wheel([1.0, 0.45] * 5),  # star
    _wheel([1.0] * 4),  # diamond
    _wheel([1.2] * 4, start=0.125),  # square
    _crescent(),
    _wheel([1.0] * 6),  # hexagon
    _heart(),
    _corners((-0.5, -0.9), (0.5, -0.9), (0.95, 0.9), (-0.95, 0.9)),  # skirt
    _corners((-0.95, -0.55), (0.95, -0.55), (0.95, 0.55), (-0.95, 0.55)),  # slab
    _cross(),
    _wheel([1.0, 0.8, 0.8] * 8),  # flower
)
PATTERNS: tuple[Mask, ...] = (  # one per category of a department
    np.zeros_like(_X, dtype=np.bool_),  # plain
    _bands(_Y, 5),  # horizontal stripes
    _bands(_X, 5),  # vertical stripes
    _bands(_X + _Y, 6),  # diagonal stripes
    _bands(_X, 6) ^ _bands(_Y, 6),  # checks
    _bands(_RADIUS, 4),  # rings
    _Y > SIDE * FINE / 2,  # lower half
    _X > SIDE * FINE / 2,  # right half
)
