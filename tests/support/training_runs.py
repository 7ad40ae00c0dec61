"""Helpers that call `python -m trainer run` with a small configuration."""

import json

from trainer.__main__ import main

TINY = {
    "towers": {"embedding_dim": 16, "history_length": 8, "id_dropout": 0.1, "id_init_std": 0.2},
    "training": {
        "device": "cpu",
        "batch_size": 64,
        "epochs": 3,
        "temperature": 0.1,
        "learning_rate": 0.005,
        "weight_decay": 0.0,
    },
}


def write_config(path, sections=None):
    """Write TINY as TOML, with the keys of `sections` overridden."""
    changed = {name: TINY.get(name, {}) | (sections or {}).get(name, {}) for name in SECTIONS}
    changed = {name: values for name, values in changed.items() if values}
    lines = []
    for name, values in changed.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


SECTIONS = ("data", "towers", "clusters", "training", "training.sampler", "evaluation", "bundle")


def arguments(data, bundles, config, *more):
    """Command-line arguments of `run`."""
    return [
        *("run", "--data", str(data), "--bundles", str(bundles), "--config", str(config)),
        *more,
    ]


def run(data, bundles, config, *more):
    """Run the command in this process; its exit status."""
    return main(arguments(data, bundles, config, *more))
