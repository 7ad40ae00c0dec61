"""The figure of the ESANS page: the negatives of one positive on a small generated shop.

    python docs/figures/cluster_map.py > build/cluster-map.svg

Builds the cluster map of the shop with the default settings (`trainer.esans.build_map`) and
draws, for one positive, how similar each kind of negative is to it in the aligned space.
"""

import io
import sys
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.catalogue import ShopSize, make_catalogue
from index.cluster_map import ClusterMap
from index.ids import hash_ids
from trainer.config import ClustersConfig
from trainer.data.dataset import load_dataset
from trainer.esans.alignment import align_modalities
from trainer.esans.build_map import load_modalities
from trainer.esans.residual_kmeans import fit_codebooks

SHOP = ShopSize(items=800, users=1_000, interactions=16_000)  # the site is built often
NUM_DRAWS = 80
WIDTH, STRIP, LEFT, RIGHT, TOP = 760, 62, 250, 20, 16
COLOURS = ("#9aa0a6", "#1a73e8", "#e8710a", "#188038")


def figure() -> str:
    """Return the figure as a raw HTML block for a MyST page."""
    with redirect_stderr(io.StringIO()):  # progress bars
        return f"```{{raw}} html\n{draw()}\n```"


def draw() -> str:
    """Build the map of a small shop, choose a positive and draw its negatives as SVG."""
    means, clusters = build()
    positive = choose_positive(clusters)
    units = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    cosines = units @ units[positive]
    rng = np.random.default_rng(0)
    strips = [
        strip(line, label, cosines[rows], COLOURS[line], rng)
        for line, (label, rows) in enumerate(kinds(clusters, positive, rng).items())
    ]
    height = TOP + STRIP * len(strips) + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Similarity of negatives to one positive">\n'
        + "\n".join([*strips, axis(TOP + STRIP * len(strips))])
        + "\n</svg>"
    )


def build() -> tuple[NDArray[np.float32], ClusterMap]:
    """Return the items' mean aligned vectors and the cluster map; as `build_cluster_map`."""
    config = ClustersConfig()
    torch.set_num_threads(1)  # two threads wait for each other on a busy machine
    with TemporaryDirectory() as folder:
        make_catalogue(Path(folder) / "shop", SHOP, seed=7)
        data = load_dataset(Path(folder) / "shop")
    aligned = align_modalities(load_modalities(data, config, seed=0), config, seed=0)
    codebooks = fit_codebooks(aligned, config, seed=0)
    clusters = ClusterMap(
        codes1=codebooks.codes1,
        codes2=codebooks.codes2,
        centroids=codebooks.centroids,
        id_hashes=hash_ids(item_id.encode() for item_id in data.item_ids),
        temperature_share=config.temperature_share,
    )
    return aligned.means(slice(None)), clusters


def choose_positive(clusters: ClusterMap) -> int:
    """Return an item whose cell has about a quarter of its cluster."""
    rows = np.arange(len(clusters), dtype=np.int32)
    cluster_sizes = np.bincount(clusters.codes1)[clusters.codes1]
    cells = clusters.codes1 * clusters.num_level_2_codes + clusters.codes2
    share = np.bincount(cells)[cells] / cluster_sizes
    is_large = cluster_sizes >= np.median(cluster_sizes)
    return int(rows[is_large][np.abs(share[is_large] - 0.25).argmin()])


def kinds(
    clusters: ClusterMap, positive: int, rng: np.random.Generator
) -> dict[str, NDArray[np.int32]]:
    """Return the rows of each kind of negative; easy and hard as in variant paper."""
    rows = np.arange(len(clusters), dtype=np.int32)
    positives = np.array([positive], dtype=np.int32)
    own_cell = clusters.is_same_cell(positives, rows)[0]
    own_cell[positive] = False
    return {
        f"uniform ({NUM_DRAWS} draws)": rng.choice(rows, NUM_DRAWS),
        f"easy ({NUM_DRAWS} draws)": clusters.sample_easy(positives, NUM_DRAWS, rng)[0],
        f"hard ({NUM_DRAWS} draws)": clusters.sample_hard(positives, NUM_DRAWS, rng)[0],
        f"same cell, masked ({own_cell.sum()} items)": rows[own_cell],
    }


def strip(
    line: int, label: str, cosines: NDArray[np.float32], colour: str, rng: np.random.Generator
) -> str:
    """Return one strip: a dot for each negative, a bar at their median."""
    middle = TOP + STRIP * (line + 0.5)
    dots = "".join(
        f'<circle cx="{position(value):.1f}" cy="{middle + jitter:.1f}" r="3.2" '
        f'fill="{colour}" fill-opacity="0.6"/>'
        for value, jitter in zip(cosines, rng.uniform(-15, 15, len(cosines)), strict=True)
    )
    x, top, bottom = position(float(np.median(cosines))), middle - 22, middle + 22
    return (
        f'<text x="{LEFT - 14}" y="{middle + 5:.1f}" font-size="14" text-anchor="end" '
        f'fill="currentColor">{label}</text>{dots}'
        f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}" stroke="currentColor" stroke-width="2"/>'
    )


def axis(y: float) -> str:
    """Return the axis: cosine similarity to the positive."""
    ticks = "".join(
        f'<text x="{position(value):.1f}" y="{y + 18}" font-size="12" text-anchor="middle" '
        f'fill="currentColor">{value:.1f}</text>'
        for value in np.arange(-0.4, 1.01, 0.2).round(1) + 0.0
    )
    label = "cosine similarity to the positive in the aligned space (bar: median)"
    return (
        f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="currentColor"/>{ticks}'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{y + 38}" font-size="13" '
        f'text-anchor="middle" fill="currentColor">{label}</text>'
    )


def position(cosine: float) -> float:
    """Return the x coordinate of a cosine between -0.5 and 1."""
    return LEFT + (max(cosine, -0.5) + 0.5) / 1.5 * (WIDTH - LEFT - RIGHT)


if __name__ == "__main__":
    sys.stdout.write(draw() + "\n")
