"""What an operator can say to the programs stands in the documentation, and the documentation says nothing else."""

import json
import re
from pathlib import Path

import pytest
import typer

import center.cli
import center.settings
import edge.cli
import edge.settings
import simulation.cli
from protocol.configuration import Section

ROOT = Path(__file__).parents[1]
FILES = {"edge.toml": edge.settings.EdgeSettings, "center.toml": center.settings.CenterSettings}
PROGRAMS = {"hanse-edge": edge.cli.app, "hanse-center": center.cli.app, "hanse-sim": simulation.cli.app}
ROW = re.compile(r"^\| `([a-z0-9_.]+)` \| (.+?) \| (.+) \|$", re.MULTILINE)


def _settings(model, prefix=""):
    """Name -> default and meaning, as the page writes them."""
    found = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= _settings(field.annotation, f"{name}.")
        else:
            default = "none: must be given" if field.is_required() else f"`{json.dumps(field.default)}`"
            found[prefix + name] = (default, " ".join((field.description or "").split()))
    return found


def _commands():
    return {f"{name} {word}" for name, app in PROGRAMS.items() for word in typer.main.get_command(app).commands}


@pytest.mark.parametrize("file", FILES)
def test_every_setting_stands_in_the_page_with_its_default_and_meaning(file) -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    chapter = next(part for part in page.split("\n## ") if f"`{file}`" in part.splitlines()[0])
    written = {name: (default, meaning) for name, default, meaning in ROW.findall(chapter)}
    assert written == _settings(FILES[file])
    assert all(meaning for _, meaning in written.values())


def test_every_command_has_a_paragraph_and_an_example() -> None:
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    chapters = {part.splitlines()[0]: part for part in page.split("\n### ")[1:]}
    assert set(chapters) == _commands()
    for command, text in chapters.items():
        assert f"\n    {command}" in text


@pytest.mark.parametrize("package", ["center", "edge", "simulation", "protocol", "docs", "README.md"])
def test_what_we_advise_to_run_is_a_command(package) -> None:
    """An error that sends the operator to a command that does not exist is worse than one that is silent."""
    place = ROOT / package
    files = [place] if place.is_file() else [*place.rglob("*.py"), *place.rglob("*.md")]
    said = {
        found
        for file in files
        for found in re.findall(r"\b(hanse-(?:edge|center|sim) [a-z]+)\b", file.read_text("utf-8"))
    }
    assert said <= _commands()
