"""README's code blocks run. `.ci/run` also runs its set-up commands whole, in a fresh clone."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from experiments import gallery
from tests.helpers import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines()]


def test_only_python_and_sh_blocks():
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert README.count("```") == 2 * len(BLOCKS)


@pytest.mark.slow
@pytest.mark.parametrize("code", PYTHON)
def test_python_blocks_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_exactly_two_commands_set_up_and_run():
    whole = [line for line in COMMANDS if "-m venv" in line]
    assert [line.split(" -m ")[-1] for line in whole] == ["experiments.xo", "pytest -n auto"]
    assert all(line.startswith("python3 -m venv .venv && .venv/bin/pip install") for line in whole)


def test_commands_name_what_exists():
    """Each part is a venv, an install of extras that exist, or a module whose help has the options that are used."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    scripts = []
    for words in (shlex.split(part) for line in COMMANDS for part in line.split("&&")):
        if words[0] == ".venv/bin/pip":
            (target,) = (word for word in words[2:] if not word.startswith("-"))
            assert words[1] == "install"
            assert set(target.removeprefix(".[").removesuffix("]").split(",")) <= extras.keys()
        elif words[1:] == ["-m", "pytest", "-n", "auto"]:
            assert any(package.startswith("pytest-xdist") for package in extras["test"])
        elif words[1:3] != ["-m", "venv"]:
            assert words[:2] == [".venv/bin/python", "-m"]
            scripts.append(words[2:])
    helps = [[module, *(word for word in arguments if word.isalpha()), "--help"] for module, *arguments in scripts]
    for words, (help_text, _) in zip(scripts, cli.run_each(ROOT, helps), strict=True):
        assert all(word in help_text for word in words if word.startswith("--"))


def test_pictures_are_those_that_the_gallery_makes():
    pictures = {}
    for path in (ROOT / "README.md", ROOT / "experiments" / "README.md"):
        links = re.findall(r"\]\(([^)]+\.png)\)", path.read_text())
        assert links
        pictures |= {link: path.parent / link for link in links}
    assert all(path.is_file() for path in pictures.values())
    shown = {path.name for path in pictures.values()}
    assert shown == {*gallery.PICTURES, *gallery.SCREENSHOTS}
    assert shown == {path.name for path in gallery.PICTURES_DIR.iterdir()}
