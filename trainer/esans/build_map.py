"""Build the cluster map of a dataset: modalities -> one space -> codes."""

from datetime import datetime
from pathlib import Path

import numpy as np

from index.arrays import Floats
from index.cluster_map import ClusterMap
from index.errors import ConfigError
from index.ids import hash_ids
from trainer.config import ClustersConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import TRAIN, histories
from trainer.esans.alignment import align
from trainer.esans.cooccurrence import behavioural_features
from trainer.esans.residual_kmeans import fit_codebooks

BEHAVIOURAL = "behavioural"


def build_cluster_map(
    data: Dataset, config: ClustersConfig, seed: int, now: datetime
) -> ClusterMap:
    """Build the cluster map of a dataset; the same arguments build the same map.

    Raises ConfigError if a modality asked for is not there, or the behaviour file is unfit.
    """
    modalities = modalities_of(data, config, seed)
    aligned = align(modalities, config, seed)
    codebooks = fit_codebooks(aligned, config, seed)
    return ClusterMap(
        codes1=codebooks.codes1,
        codes2=codebooks.codes2,
        centroids=codebooks.centroids,
        id_hashes=hash_ids(one.encode() for one in data.item_ids),
        temperature_share=config.temperature_share,
        made={
            "at": now.isoformat(),
            "seed": seed,
            "config": config.model_dump(mode="json"),
            "dataset": data.fingerprint,
            "items_with": {
                name: int(aligned.presence[:, place].sum())
                for place, name in enumerate(aligned.blocks)
            },
            "items_with_nothing": int((~aligned.presence.any(axis=1)).sum()),
            "alignment_loss": aligned.loss,
        },
    )


def modalities_of(data: Dataset, config: ClustersConfig, seed: int) -> dict[str, Floats]:
    """Gather the modalities to use, behaviour learned or read; [items, width] each.

    A modality of the dataset that bears the name stands for the behavioural one.
    """
    wanted = config.modalities or tuple({**data.modalities, BEHAVIOURAL: None})
    there = {*data.modalities, BEHAVIOURAL}
    if unknown := sorted(set(wanted) - there):
        raise ConfigError(
            f"clusters.modalities: {unknown} not among those of the dataset, "
            f"which are {sorted(there)}; name some of these, or none for all"
        )
    modalities = {name: data.modalities[name] for name in wanted if name in data.modalities}
    if BEHAVIOURAL in wanted and BEHAVIOURAL not in modalities:
        modalities[BEHAVIOURAL] = _behaviour(data, config, seed)
    return modalities


def _behaviour(data: Dataset, config: ClustersConfig, seed: int) -> Floats:
    """Read the behavioural rows where a file is given, else learn them from training."""
    count = len(data.item_ids)
    if config.behaviour_file:
        return read_behaviour(Path(config.behaviour_file), count)
    taken = histories(data.interactions, (TRAIN,), len(data.user_ids))
    return behavioural_features(taken, count, config.embedding_dim, seed)


def read_behaviour(path: Path, count: int) -> Floats:
    """Read [items, width] float rows in the order of the items, all NaN where missing.

    Raises ConfigError if that is not what the file holds.
    """
    remedy = f"expected floats of shape ({count}, width), in the order of the items table"
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"clusters.behaviour_file: {path} cannot be read: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.ndim != 2:
        raise ConfigError(f"clusters.behaviour_file: {path} is no matrix of floats; {remedy}")
    if len(found) != count or not found.shape[1]:
        raise ConfigError(f"clusters.behaviour_file: {path} holds {found.shape}; {remedy}")
    rows = found.astype(np.float32)
    is_faulty = ~np.isfinite(rows).all(axis=1) & ~np.isnan(rows).all(axis=1)
    if is_faulty.any():
        raise ConfigError(
            f"clusters.behaviour_file: {path}, row {is_faulty.argmax()} is partly NaN or "
            "infinite; make rows finite, or all NaN where an item has none"
        )
    return rows
