"""Help, completion, --quiet and NO_COLOR: what a person sees around the commands themselves."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.text import Text

from gentrain.cli import app, run
from gentrain.view.base import open_console
from gentrain.view.tables import STATES
from tests.conftest import SMALL

COMMANDS = typer.main.get_command(app).commands
GENTRAIN = str(Path(sys.executable).with_name("gentrain"))
COLOURS = re.compile(r"\x1b\[[0-9;]*?(3[0-7]|9[0-7]|38;)")


def help_of(capsys, monkeypatch, *arguments, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert run([*arguments, "--help"]) == 0
    return capsys.readouterr().out


def chain(*options):
    return ["chain", *(part for setting in SMALL for part in ("--set", setting)), *map(str, options)]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_list_of_commands_is_whole(capsys, monkeypatch, width):
    text = help_of(capsys, monkeypatch, width=width)
    assert max(map(len, text.splitlines())) <= width
    commands = text[text.index("─ Train") :]
    assert "…" not in commands
    words = " ".join(re.findall(r"[^\s│╭╰─╮╯]+", commands))
    for name, command in COMMANDS.items():
        assert f"{name} {' '.join(command.help.partition(chr(10))[0].split())}" in words
    assert [panel for panel in ("─ Train ─", "─ Results ─", "─ This machine") if panel not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_is_whole_at_80_columns_and_has_an_example(capsys, monkeypatch, name):
    text = help_of(capsys, monkeypatch, name, width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert f"Example: gentrain {name}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_has_options_that_there_are(name):
    command = COMMANDS[name]
    words = command.epilog.removeprefix("Example: gentrain ").split()
    known = {option for param in command.params for option in param.opts}
    assert words[0] == name
    assert [word for word in words if word.startswith("-") and word not in known] == []


def complete(folder, words, count):
    environment = os.environ | {
        "_GENTRAIN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)
    }  # fmt: skip
    done = subprocess.run([GENTRAIN], env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_a_shell_completes_commands_studies_and_chains(tmp_path):
    for name in ("runs/studies/first/chains", "other/studies/second"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs/studies/first/chains/D(0.6,0.6)-resnet8-s0.json").touch()
    assert complete(tmp_path, "gentrain eva", 1) == ["evaluate"]
    assert complete(tmp_path, "gentrain status ", 2) == ["first"]
    assert complete(tmp_path, "gentrain report --runs other ", 4) == ["second"]
    assert complete(tmp_path, "gentrain evaluate first --chain D", 4) == ["D(0.6,0.6)-resnet8-s0"]
    assert complete(tmp_path, "gentrain status --runs nowhere ", 4) == []


def test_quiet_prints_only_results_and_errors(capfd, tmp_path):
    assert run(chain("--runs", tmp_path, "--local", "--quiet", "--set", "recipe.pad=1")) == 0
    quiet, err = capfd.readouterr()
    assert err == ""
    assert quiet.startswith("D(0.6,0.6)-resnet8-s0\n")
    assert run(chain("--runs", tmp_path, "--local")) == 0
    assert "generation 1 done" not in quiet
    assert capfd.readouterr().out.endswith(quiet)
    assert run(chain("--runs", tmp_path, "-q", "--local", "--f-a1", "0.2")) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize(("setting", "coloured"), [({"NO_COLOR": "1"}, False), ({}, True)])
def test_no_color_is_respected(monkeypatch, setting, coloured):
    """On what Rich takes for a terminal, for help and for tables."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"FORCE_COLOR": "1", "TERM": "xterm-256color"} | setting).items():
        monkeypatch.setenv(name, value)
    console = open_console(io.StringIO())
    console.print(Text("failed", style=STATES["failed"]))
    assert bool(COLOURS.search(console.file.getvalue())) == coloured
    done = subprocess.run([GENTRAIN, "--help"], capture_output=True, text=True, check=True)
    assert bool(COLOURS.search(done.stdout)) == coloured
