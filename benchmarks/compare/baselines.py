"""What needs no training loop, beside every study: popularity, and EASE where it fits."""

import json
from pathlib import Path

from benchmarks.compare.subset import StudyDataset, load_subset
from index.fsio import write_json
from trainer.catalogue import training_counts
from trainer.config import EvaluationConfig
from trainer.data.histories import cases, histories
from trainer.data.interactions import TEST, TRAIN
from trainer.measures import Measures, measure, rank_targets
from trainer.references import ease, popularity


def baselines_of(dataset: StudyDataset, folder: Path) -> dict[str, Measures]:
    """Measure popularity and EASE on a dataset's test part, or load what was measured.

    folder  where it is kept, once a dataset

    EASE needs items x items numbers: above the limit of a run's configuration it is left out.
    """
    path = folder / "baselines" / f"{dataset.fingerprint[:24]}.json"
    if path.exists():
        found: dict[str, Measures] = json.loads(path.read_text(encoding="utf-8"))
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    data, config = load_subset(dataset.subset), EvaluationConfig()
    user_count, item_count = len(data.user_ids), len(data.item_ids)
    asked = cases(data.interactions, TEST, user_count)
    ranked = {"popularity": popularity(training_counts(data), asked)}
    if item_count <= config.ease_items_limit:
        train = histories(data.interactions, (TRAIN,), user_count)
        ranked["EASE"] = ease(train, asked, item_count, config.ease_lambda)
    measured = {
        name: measure(answers, rank_targets(answers, asked), item_count)
        for name, answers in ranked.items()
    }
    write_json(path, measured)
    return measured
