"""The examples of docs/models.md are deployments that a host would take."""

import re
import tomllib
from pathlib import Path

import msgspec

from actors.model import Model
from actors.models.dialects import DIALECTS, Dialect
from actors.models.options import ModelOptions
from runtime.config import load
from runtime.tables import Config
from runtime.terminal.manifest import read_manifest

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def examples() -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_every_provider_has_an_example_that_can_be_deployed(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(next(text for text in examples() if "[[actor]]" in text), encoding="utf-8")
    found = read_manifest(file).deployments

    assert {one.options["provider"] for one in found} == {
        "openai",
        "ollama",
        "gemini",
        "coze",
        "echo",
    }
    assert {one.type for one in found} == {f"{Model.__module__}:{Model.__name__}"}


def test_the_other_examples_are_configuration(tmp_path: Path) -> None:
    file = tmp_path / "callboard.toml"
    file.write_text(next(text for text in examples() if "[models]" in text), encoding="utf-8")

    assert load(file, {}).models.discover is False
    assert Config().models.discover is True


def test_every_option_is_explained_and_nothing_that_is_none() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition("## Options")[2].partition("## Echo")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.M))))

    assert named == {field.name for field in msgspec.structs.fields(ModelOptions)}
    assert all(tomllib.loads(text) for text in examples())


def test_every_dialect_and_every_trait_is_explained() -> None:
    page = PAGE.read_text(encoding="utf-8")
    section = page.partition("## What each provider is sent")[2].partition("\n## ")[0]
    traits = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", section, re.M)))
    names = re.findall(r"`([\w-]+)`", section.partition("\nNames: ")[2].partition("\n\n")[0])

    assert set(traits) == {field.name for field in msgspec.structs.fields(Dialect)}
    assert names == list(DIALECTS)
