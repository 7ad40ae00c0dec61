"""A run as a person starts it: `python -m trainer run`, on a small configuration."""

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
    """Write TINY as TOML, sections changed key by key."""
    changed = {name: TINY.get(name, {}) | (sections or {}).get(name, {}) for name in SECTIONS}
    changed = {name: values for name, values in changed.items() if values}
    lines = []
    for name, values in changed.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(one)}" for key, one in values.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


SECTIONS = (
    "data",
    "towers",
    "clusters",
    "training",
    "training.sampler",
    "evaluation",
    "bundle",
)


def arguments(data, bundles, config, *more):
    """The command's words."""
    return [
        *("run", "--data", str(data), "--bundles", str(bundles), "--config", str(config)),
        *more,
    ]


def run(data, bundles, config, *more):
    """Run the command here; its exit status."""
    return main(arguments(data, bundles, config, *more))
