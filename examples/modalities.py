"""Features of the items: titles and pictures as vectors, with missing rows."""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from examples.pictures import Pixels
from examples.shop import Ints

Floats = NDArray[np.float32]

WIDTH = 64  # numbers per item in either modality; a shop needs more items than that
NOISE = 0.25  # standard deviation of the noise, as a share of the values' own
VISUAL_GAPS = 0.03  # share of items without a picture
TEXTUAL_GAPS = 0.02  # share of items without a text


def build_modalities(
    titles: list[str], pictures: Pixels, rng: np.random.Generator
) -> dict[str, Floats]:
    """Compute `visual` and `textual`, both [items, WIDTH]; every item has at least one.

    Runs on one thread: sums split over threads may round differently from run to run.
    """
    order = rng.permutation(len(titles))
    visual_end = max(1, round(VISUAL_GAPS * len(titles)))
    textual_end = visual_end + max(1, round(TEXTUAL_GAPS * len(titles)))
    with threadpool_limits(limits=1):
        visual, textual = picture_features(pictures, rng), title_features(titles, rng)
    return {
        "visual": add_noise(visual, order[:visual_end], rng),
        "textual": add_noise(textual, order[visual_end:textual_end], rng),
    }


def title_features(titles: list[str], rng: np.random.Generator) -> Floats:
    """Reduce the tf-idf of the titles to [items, WIDTH]."""
    words = TfidfVectorizer().fit_transform(titles)
    reducer = TruncatedSVD(WIDTH, random_state=int(rng.integers(2**31)))
    return np.asarray(reducer.fit_transform(words), dtype=np.float32)


def picture_features(pictures: Pixels, rng: np.random.Generator) -> Floats:
    """Reduce the pixels to [items, WIDTH]."""
    pixels = pictures.reshape(len(pictures), -1).astype(np.float32) / 255
    reducer = PCA(WIDTH, svd_solver="randomized", random_state=int(rng.integers(2**31)))
    return np.asarray(reducer.fit_transform(pixels), dtype=np.float32)


def add_noise(values: Floats, missing: Ints, rng: np.random.Generator) -> Floats:
    """Add noise to every number, and set the missing rows to NaN."""
    noisy = values + rng.normal(scale=NOISE * values.std(), size=values.shape)
    noisy[missing] = np.nan
    return noisy.astype(np.float32)
