import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from service.settings import PREFIX, Settings
from trainer.config import RunConfig
from trainer.samplers.config import SamplerConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DECISIONS = sorted((ROOT / "docs/decisions").glob("0*.md"))


@pytest.fixture
def site():
    """The site that `make docs` builds, with warnings as errors."""
    folder = ROOT / "build/docs"
    assert folder.is_dir(), "build the site with `make docs`, which runs these tests"
    return folder


@pytest.mark.docs
def test_site_has_pages(site):
    assert {"index.html", "quickstart.html", "esans.html"} <= {path.name for path in site.iterdir()}


@pytest.mark.docs
def test_configuration_page_lists_every_service_setting(site):
    text = (site / "configuration.html").read_text(encoding="utf-8")
    missing = [name for name in Settings.model_fields if f"{PREFIX}{name}".upper() not in text]
    assert missing == []


@pytest.mark.docs
def test_configuration_page_lists_every_run_key(site):
    text = re.sub(r"<[^>]+>", "", (site / "configuration.html").read_text(encoding="utf-8"))
    keys = {*keys_of(RunConfig, ""), *sampler_keys()}
    assert {"seed", "training.sampler.alpha_min"} <= keys
    assert [key for key in sorted(keys) if key not in text] == []


@pytest.mark.docs
def test_http_page_lists_every_operation(site):
    text = (site / "http-api.html").read_text(encoding="utf-8")
    assert "POST /retrieve/batch" in re.sub(r"<[^>]+>", "", text)
    assert "generated:" not in text


@pytest.mark.docs
def test_esans_page_contains_the_generated_figure(site):
    assert "<circle" in (site / "esans.html").read_text(encoding="utf-8")


def test_readme_relative_links_resolve():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_decision_has_three_sections_in_40_lines(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Consequences"]


def keys_of(model, path):
    """Yield the dotted name of every key, without those of samplers."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation, f"{path}{name}.")
        elif f"{path}{name}" != "training.sampler":
            yield f"{path}{name}"


def sampler_keys():
    """Yield the dotted name of every key of every sampler."""
    for model in get_args(get_args(SamplerConfig)[0]):
        yield from (f"training.sampler.{name}" for name in model.model_fields)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"]
PAGES += [path for path in (ROOT / "docs").rglob("*.md") if "decisions" not in path.parts]
NAMED = re.compile(
    r"(?<![\w./-])(?:tests|benchmarks|examples|trainer|index|service)/[\w/-]+\.(?:py|toml)"
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_named_in_docs_exist(path):
    named = set(NAMED.findall(path.read_text(encoding="utf-8")))
    assert [file for file in sorted(named) if not (ROOT / file).exists()] == []
