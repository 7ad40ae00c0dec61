"""What needs no training loop, beside every comparison: popularity, and EASE where it fits."""

import json
from pathlib import Path

from index.fsio import write_json
from trainer.catalogue import training_counts
from trainer.comparison.cut import load_cut
from trainer.comparison.schedule import World
from trainer.config import EvaluationConfig
from trainer.data.histories import cases, histories
from trainer.data.interactions import TEST, TRAIN
from trainer.measures import Measures, measure, rank_targets
from trainer.references import ease, popularity


def yardsticks_of(world: World, folder: Path) -> dict[str, Measures]:
    """Measure popularity and EASE on a dataset's test part, or read what was measured.

    folder  where it is kept, once a dataset

    EASE needs items x items numbers: above the limit of a run's configuration it is left out.
    """
    path = folder / "yardsticks" / f"{world.fingerprint[:24]}.json"
    if path.exists():
        found: dict[str, Measures] = json.loads(path.read_text(encoding="utf-8"))
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = _measure(world)
    write_json(path, measured)
    return measured


def _measure(world: World) -> dict[str, Measures]:
    data, config = load_cut(world.cut), EvaluationConfig()
    user_count, item_count = len(data.user_ids), len(data.item_ids)
    asked = cases(data.interactions, TEST, user_count)
    ranked = {"popularity": popularity(training_counts(data), asked)}
    if item_count <= config.ease_items_limit:
        train = histories(data.interactions, (TRAIN,), user_count)
        ranked["EASE"] = ease(train, asked, item_count, config.ease_lambda)
    return {
        name: measure(answers, rank_targets(answers, asked), item_count)
        for name, answers in ranked.items()
    }
