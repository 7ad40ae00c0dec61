"""Read the Dockerfile as the engine would, stage by stage, for tests where no engine runs."""

import json
from pathlib import Path

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]


def stages():
    """Stage name -> its instructions, those of the stage it is built from included."""
    found, name = {}, ""
    parser = DockerfileParser(path=str(ROOT / "Dockerfile"), cache_content=True)
    for step in parser.structure:
        kind, value = step["instruction"], step["value"]
        if kind == "FROM":
            base, _, name = value.partition(" AS ")
            found[name] = list(found.get(base, []))
        elif kind != "COMMENT":
            found[name].append((kind, value))
    return found


def values(stage, kind):
    """All values of one instruction in a stage, in order."""
    return [value for step, value in stages()[stage] if step == kind]


def environment(stage):
    """The ENV of a stage as a dict."""
    return {
        name: value
        for line in values(stage, "ENV")
        for name, _, value in (pair.partition("=") for pair in line.replace("\\", " ").split())
    }


def exec_form(text):
    """An ENTRYPOINT, CMD or HEALTHCHECK command as the list it must be."""
    return json.loads(text[text.index("[") :])
