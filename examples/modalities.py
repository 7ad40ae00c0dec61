"""What a machine sees of the goods: titles and pictures as rows of numbers, with gaps."""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import (  # type: ignore[import-untyped]  # comes with scikit-learn
    threadpool_limits,
)

from examples.pictures import Pixels
from examples.shop import Ints

Floats = NDArray[np.float32]

WIDTH = 64  # numbers per item in either modality; a shop needs more items than that
NOISE = 0.25  # standard deviation of the noise, as a share of the values' own
VISUAL_GAPS = 0.03  # share of items without a picture
TEXTUAL_GAPS = 0.02  # share of items without a text


def make_modalities(
    titles: list[str], pictures: Pixels, rng: np.random.Generator
) -> dict[str, Floats]:
    """`visual` and `textual`, both [items, WIDTH]; no item lacks both.

    One thread: a sum split over threads may round otherwise the next time.
    """
    order = rng.permutation(len(titles))
    visual_end = max(1, round(VISUAL_GAPS * len(titles)))
    textual_end = visual_end + max(1, round(TEXTUAL_GAPS * len(titles)))
    with threadpool_limits(limits=1):
        visual, textual = describe_pictures(pictures, rng), describe_titles(titles, rng)
    return {
        "visual": roughen(visual, order[:visual_end], rng),
        "textual": roughen(textual, order[visual_end:textual_end], rng),
    }


def describe_titles(titles: list[str], rng: np.random.Generator) -> Floats:
    """[items, WIDTH] tf-idf of the words, reduced."""
    words = TfidfVectorizer().fit_transform(titles)
    reducer = TruncatedSVD(WIDTH, random_state=int(rng.integers(2**31)))
    return np.asarray(reducer.fit_transform(words), dtype=np.float32)


def describe_pictures(pictures: Pixels, rng: np.random.Generator) -> Floats:
    """[items, WIDTH] the pixels, reduced."""
    pixels = pictures.reshape(len(pictures), -1).astype(np.float32) / 255
    reducer = PCA(WIDTH, svd_solver="randomized", random_state=int(rng.integers(2**31)))
    return np.asarray(reducer.fit_transform(pixels), dtype=np.float32)


def roughen(values: Floats, missing: Ints, rng: np.random.Generator) -> Floats:
    """Add noise to every number, and make the missing rows all-NaN."""
    rough = values + rng.normal(scale=NOISE * values.std(), size=values.shape)
    rough[missing] = np.nan
    return rough.astype(np.float32)
