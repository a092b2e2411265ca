"""What each command does with a damaged run folder: every kind of file and folder, every kind of damage.

`python -m tests.damage` tries all of them and writes the table in docs/faults.md; tests/test_damage.py tries them too.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.damaged_store import (
    CASES,
    COMMANDS,
    FILES,
    FOLDERS,
    OF_FOLDERS,
    VOLATILE,
    Ending,
    Store,
    command,
    damaged_copy,
    quick,
)


def commands_of(kind: str) -> tuple[str, ...]:
    """Return the commands that open a kind of file or folder, or list the folder it is in."""
    if "train/" in kind or kind == ".lock of a generation":
        return ("status", "plan", "begun")
    if kind == "ray.log" or kind.startswith("report/"):
        return ("status", "report")
    if "stud" in kind or kind in ("chains/*.json", "results.parquet"):
        return tuple(name for name in COMMANDS if name != "plan")
    return COMMANDS


@dataclass
class Outcome:
    """What a command did with a damage."""

    text: str
    """as before; restored; left out; refused (exit status)."""
    line: str
    """The line that says so."""
    problems: list[str] = field(default_factory=list)
    """What must never happen, and did."""


def try_command(store: Store, name: str, folder: Path, *, noted: bool) -> Outcome:
    """Run a command on a damaged copy and compare what it prints with what it prints of the sound run folder.

    Args:
        store: the sound one.
        name: of the command.
        folder: with the copy.
        noted: whether a result that is left out must be said; there is nothing to say where a whole folder is gone.
    """
    ending, sound = command(name, folder), store.endings[name]
    notes = [line for line in ending.err.splitlines() if NOTED.search(line)]
    outcome = Outcome("", notes[-1] if notes else "")
    same = _rows(name, ending, folder) == _rows(name, sound, store.folder)
    if ending.status not in (0, 1, 2) or "Traceback" in ending.err + ending.out:
        outcome.problems.append(f"exit status {ending.status}: {ending.err[-2000:]}")
    elif ending.status:
        last = ending.err.splitlines()[-1]
        outcome.text, outcome.line = f"refused ({ending.status})", last
        if not last.startswith("gentrain: ") or len(last) > LONGEST_LINE:
            outcome.problems.append(f"refused without one line: {ending.err[-2000:]}")
    elif same:
        outcome.text = "restored" if notes else "as before"
    elif name in ("chain", "sweep", "begun", "evaluate"):
        outcome.problems.append(f"another result: {ending.out[-2000:]}")
    else:
        outcome.text = "left out"
        wrong = [row for row in _rows(name, ending, folder) if row not in _rows(name, sound, store.folder)]
        if name in ("report", "status") and any(row["value"] is not None for row in wrong):
            outcome.problems.append(f"another result: {wrong}")
        if noted and name != "plan" and not notes:
            outcome.problems.append("left out without a word")
    return outcome


NOTED = re.compile(r"^(warning|gentrain): (?!precision:)|rebuilt$")
LONGEST_LINE = 600


def _rows(name: str, ending: Ending, folder: Path) -> list[dict[str, object]]:
    """Return what a command prints, as rows that can be compared."""
    if name == "report":
        rows = csv.DictReader(io.StringIO(ending.out))
        return [{**row, "value": row["mean"] or None} for row in rows if "second" not in row["row"]]
    rows = [json.loads(line.replace(str(folder), "")) for line in ending.out.splitlines()] if not ending.status else []
    if name == "status":
        names = ("study", "chain", "generation", "key", "top1_error", "validation_error")
        return [{**{n: row[n] for n in names}, "value": row["top1_error"]} for row in rows]
    return [{key: value for key, value in row.items() if key not in VOLATILE} for row in rows]


def lost_files(store: Store, folder: Path, spared: set[str]) -> list[str]:
    """Return finished generations' files that a copy has no more or has otherwise, but for the keys in `spared`."""
    sound = store.folder / "runs" / "generations"
    lost = []
    for path in sound.glob("*/*.*"):
        ours = folder / "runs" / "generations" / path.relative_to(sound)
        if path.parent.name not in spared and path.is_file() and path.name[0] != ".":
            try:
                same = os.path.samefile(path, ours) or path.read_bytes() == ours.read_bytes()
            except OSError:
                same = False
            lost += [] if same else [str(ours)]
    return lost


def try_damage(
    store: Store, kind: str, damage: str, *, writers: tuple[str, ...] = ("chain", "sweep")
) -> dict[str, Outcome]:
    """Return what each command does with one damage, by the command's name.

    Args:
        store: the sound one.
        kind: of file or folder.
        damage: done to it.
        writers: the commands that train to be tried, each on a copy of its own.
    """
    outcomes, shared = {}, damaged_copy(store, kind, damage)
    whole = kind in ("the run folder", "generations/", "generations/<key>/")
    noted = not (damage in ("deleted", "a dangling link", "a link in a loop", "a file") and kind in FOLDERS)
    for name in commands_of(kind):
        if name in ("chain", "sweep") and name not in writers:
            continue
        writes = name in ("chain", "sweep", "begun")
        folder = damaged_copy(store, kind, damage) if writes else shared
        outcomes[name] = try_command(store, name, folder, noted=noted and damage != "deleted")
        spared = {store.keys["begun"]}
        if "{first}" in (FILES | FOLDERS)[kind]:
            spared |= {store.keys["first"], store.keys["second"]}
        if not (whole and damage in OF_FOLDERS and not damage.startswith("a stray")):
            outcomes[name].problems += [f"lost: {path}" for path in lost_files(store, folder, spared)]
        if writes:
            shutil.rmtree(folder)
    shutil.rmtree(shared)
    return outcomes


COLUMNS = {"status": "status", "plan": "plan", "evaluate": "evaluate", "report": "report", "run": "chain, sweep"}
BEGIN, END = "<!-- damage: begin -->", "<!-- damage: end -->"
DOCUMENT = Path(__file__).parents[1] / "docs" / "faults.md"


def table(outcomes: dict[tuple[str, str], dict[str, Outcome]]) -> str:
    """Return the matrix as a Markdown table; damages of a kind with the same outcomes share a row."""
    lines = [f"| file or folder | damage | {' | '.join(COLUMNS.values())} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for kind in (*FILES, *FOLDERS):
        rows: dict[tuple[str, ...], list[str]] = {}
        for (own, damage), tried in outcomes.items():
            if own == kind:
                run = [tried[name].text for name in ("chain", "sweep", "begun") if name in tried]
                shown = {name: tried[name].text for name in COLUMNS if name in tried} | {
                    "run": ", ".join(dict.fromkeys(run))
                }
                rows.setdefault(tuple(shown.get(name) or "–" for name in COLUMNS), []).append(damage)
        for cells, damages in rows.items():
            lines.append(f"| `{kind}` | {', '.join(damages)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Try every damage with every command; write the table; return 1 where something happened that must not."""
    root = Path(tempfile.mkdtemp())
    outcomes, failed = {}, 0
    try:
        with quick():
            store = Store(root)
            for kind, damage in CASES:
                if len(sys.argv) > 1 and sys.argv[1] not in kind:
                    continue
                tried = outcomes[kind, damage] = try_damage(store, kind, damage)
                for name, outcome in tried.items():
                    failed += bool(outcome.problems)
                    line = outcome.line.replace(str(root), "")
                    sys.stdout.write(f"{kind} | {damage} | {name} | {outcome.text} | {line} {outcome.problems or ''}\n")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if len(sys.argv) == 1 and not failed:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{table(outcomes)}\n{END}{rest.partition(END)[2]}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
