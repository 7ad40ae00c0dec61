"""Build the cluster map of a dataset (MSAC): align modalities, then fit codebooks."""

from datetime import datetime
from pathlib import Path

import numpy as np

from index.arrays import Features, Floats
from index.cluster_map import ClusterMap
from index.errors import ConfigError
from index.ids import hash_ids
from index.ingest.items import load_array
from trainer.config import ClustersConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import TRAIN, build_histories
from trainer.esans.alignment import align_modalities
from trainer.esans.cooccurrence import build_behavioural_features
from trainer.esans.residual_kmeans import fit_codebooks
from trainer.memory import release_freed_memory

BEHAVIOURAL = "behavioural"


def build_cluster_map(
    data: Dataset, config: ClustersConfig, seed: int, now: datetime
) -> ClusterMap:
    """Build the cluster map of a dataset; equal arguments give an equal map.

    Raises:
        ConfigError: a configured modality does not exist, or the behaviour file is invalid.

    Source: ESANS (Xing et al., WWW 2025), MSAC.
    """
    modalities = load_modalities(data, config, seed)
    release_freed_memory()
    aligned = align_modalities(modalities, config, seed)
    codebooks = fit_codebooks(aligned, config, seed)
    return ClusterMap(
        codes1=codebooks.codes1,
        codes2=codebooks.codes2,
        centroids=codebooks.centroids,
        id_hashes=hash_ids(item_id.encode() for item_id in data.item_ids),
        temperature_share=config.temperature_share,
        made={
            "at": now.isoformat(),
            "seed": seed,
            "config": config.model_dump(mode="json"),
            "dataset": data.fingerprint,
            "items_with": {
                name: int(aligned.presence[:, column].sum())
                for column, name in enumerate(aligned.embeddings)
            },
            "items_with_nothing": int((~aligned.presence.any(axis=1)).sum()),
            "alignment_loss": aligned.loss,
        },
    )


def load_modalities(data: Dataset, config: ClustersConfig, seed: int) -> dict[str, Features]:
    """Load the configured modalities, each [num_items, dim]; all of them if none is configured.

    The behavioural modality is learned or loaded, unless the dataset has one of that name.
    """
    requested = config.modalities or tuple({**data.modalities, BEHAVIOURAL: None})
    available = {*data.modalities, BEHAVIOURAL}
    if unknown := sorted(set(requested) - available):
        raise ConfigError(
            f"clusters.modalities: {unknown} not among the modalities of the dataset, "
            f"{sorted(available)}; name some of these, or none to use all"
        )
    modalities = {name: data.modalities[name] for name in requested if name in data.modalities}
    if BEHAVIOURAL in requested and BEHAVIOURAL not in modalities:
        modalities[BEHAVIOURAL] = _load_or_build_behaviour(data, config, seed)
    return modalities


def _load_or_build_behaviour(data: Dataset, config: ClustersConfig, seed: int) -> Floats:
    """Load the configured behaviour file, or learn the rows from training histories."""
    num_items = len(data.item_ids)
    if config.behaviour_file:
        return load_behaviour(Path(config.behaviour_file), num_items)
    training_histories = build_histories(data.interactions, (TRAIN,), len(data.user_ids))
    return build_behavioural_features(training_histories, num_items, config.embedding_dim, seed)


def load_behaviour(path: Path, num_items: int) -> Floats:
    """Load behavioural rows [num_items, dim] in the order of the items, all NaN where missing.

    Raises:
        ConfigError: the file does not hold such a matrix.
    """
    remedy = f"expected floats of shape ({num_items}, dim), in the order of the items table"
    try:
        values = load_array(path)
    except ValueError as error:
        raise ConfigError(f"clusters.behaviour_file: {path}: {error}") from error
    if values.dtype.kind != "f" or values.ndim != 2:
        raise ConfigError(f"clusters.behaviour_file: {path} is no matrix of floats; {remedy}")
    if len(values) != num_items or not values.shape[1]:
        raise ConfigError(f"clusters.behaviour_file: {path} has shape {values.shape}; {remedy}")
    rows = values.astype(np.float32)
    is_invalid = ~np.isfinite(rows).all(axis=1) & ~np.isnan(rows).all(axis=1)
    if is_invalid.any():
        raise ConfigError(
            f"clusters.behaviour_file: {path}, row {is_invalid.argmax()} is partly NaN or "
            "infinite; make rows finite, or all NaN where an item has none"
        )
    return rows
