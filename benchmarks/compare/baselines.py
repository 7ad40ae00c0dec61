"""What needs no training loop, beside every study: popularity, and EASE where it fits."""

import json
from pathlib import Path

from benchmarks.compare.subset import StudyDataset, load_subset
from index.fsio import write_json
from trainer.baselines import rank_baselines
from trainer.config import EvaluationConfig
from trainer.metrics import MetricValues, build_evaluation_set, compute_metrics, rank_targets

NAMES = {"popularity": "popularity", "ease": "EASE"}


def baselines_of(dataset: StudyDataset, folder: Path) -> dict[str, MetricValues]:
    """Measure popularity and EASE on a dataset's test part, or load what was measured.

    folder  where it is kept, once a dataset

    EASE needs items x items numbers: above the limit of a run's configuration it is left out.
    """
    path = folder / "baselines" / f"{dataset.fingerprint[:24]}.json"
    if path.exists():
        found: dict[str, MetricValues] = json.loads(path.read_text(encoding="utf-8"))
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = build_evaluation_set(load_subset(dataset.subset))
    measured = {
        NAMES[name]: compute_metrics(ranked, rank_targets(ranked, asked.cases), len(asked.counts))
        for name, ranked in rank_baselines(asked, EvaluationConfig()).items()
    }
    write_json(path, measured)
    return measured
