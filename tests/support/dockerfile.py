"""Parser of the Dockerfile, stage by stage, for tests without a container engine."""

import json
from pathlib import Path

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]


def stages():
    """Stage name -> its instructions, including those of its base stage."""
    instructions, name = {}, ""
    parser = DockerfileParser(path=str(ROOT / "Dockerfile"), cache_content=True)
    for step in parser.structure:
        kind, value = step["instruction"], step["value"]
        if kind == "FROM":
            base, _, name = value.partition(" AS ")
            instructions[name] = list(instructions.get(base, []))
        elif kind != "COMMENT":
            instructions[name].append((kind, value))
    return instructions


def values(stage, kind):
    """All values of one instruction in a stage, in order."""
    return [value for step, value in stages()[stage] if step == kind]


def environment(stage):
    """ENV of a stage as a dict."""
    return {
        name: value
        for line in values(stage, "ENV")
        for name, _, value in (pair.partition("=") for pair in line.replace("\\", " ").split())
    }


def exec_form(text):
    """Parse the exec form of an ENTRYPOINT, CMD or HEALTHCHECK."""
    return json.loads(text[text.index("[") :])
