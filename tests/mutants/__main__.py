"""Plant each mutant in a copy of the project, run the tests that should notice it, write docs/mutants.md.

`python -m tests.mutants` takes all and writes the table; `python -m tests.mutants WORD …` takes those whose fault,
module or tests contain one of the words, and writes nothing. The checkout is never changed. Ends with status 1 where a
mutant survives without a known reason.
"""

import compileall
import importlib
import os
import py_compile
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import MUTANTS
from tests.mutants.mutant import Mutant, problems_of

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "mutants.md"
COPIED = ("gentrain", "tests", "experiments", "docs", "pyproject.toml", "README.md")
DEADLINE = 300.0
"""Seconds after which a mutant's tests count as failed: it hangs."""
CLEAN_DEADLINE = 1800.0
"""Seconds for all tests without any fault."""
LOADED_ONCE = ("pyarrow.parquet", "pydantic", "safetensors.torch", "sklearn.datasets", "torch", "torchvision")
"""Imported before the processes that run tests are forked, which would take longer to import them than to test."""

HEAD = """\
# Planted faults

`make mutants` plants each of these faults in a copy of the project, runs the tests named for it and writes this page.
`make mutants ONLY=momentum` takes those with that word and writes nothing. The list is in
`tests/mutants/`; a fault whose text the code no longer has is an error, in `make test` too.

**{noticed} of {count} faults are noticed ({share:.1f} %).**
"""


@dataclass(frozen=True)
class Outcome:
    """What the tests said of a mutant."""

    status: int
    """As pytest's: 0 where all tests passed."""
    test: str
    """The first test that failed."""
    output: str

    @property
    def noticed(self) -> bool:
        """Whether a test failed."""
        return self.status != 0


def run_tests(copy: Path, tests: Sequence[str], *, deadline: float = DEADLINE) -> Outcome:
    """Run tests of the copy in another process, until the first fails."""
    log = copy / "tests.log"
    child = os.fork()
    if not child:
        _become_tests(copy, tests, log)
    status = _wait(child, deadline)
    output = log.read_text(errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(.+?)(?: - .*)?$", output, re.MULTILINE)
    if status is None:
        return Outcome(1, f"no end within {deadline:.0f} s", output)
    if status < 0:
        return Outcome(1, f"ended by signal {-status}", output)
    if status > 2:  # no such test, an error of pytest's own
        raise SystemExit(f"pytest {' '.join(tests)}: status {status}\n{output}")
    return Outcome(status, failed[1] if failed else "an error at import" if status else "", output)


def _become_tests(copy: Path, tests: Sequence[str], log: Path) -> None:
    """Run pytest in this forked process, whose project is the copy, and end."""
    os.setsid()
    os.chdir(copy)
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path.insert(0, str(copy))
    for name in [name for name in sys.modules if name.partition(".")[0] in {"tests", "gentrain"}]:
        del sys.modules[name]
    import pytest

    options = ["-q", "-x", "--no-header", "--tb=line", "-p", "no:cacheprovider"]
    status = int(pytest.main([*options, *(f"tests/{test}" for test in tests)]))
    if status in (0, 1) and not sys.modules["gentrain"].__file__.startswith(str(copy)):
        _say(f"gentrain is {sys.modules['gentrain'].__file__}, not the copy's")
        status = 3
    sys.stdout.flush()
    os._exit(status)


def _wait(child: int, deadline: float) -> int | None:
    """Return the status of a child, None where it didn't end in time; nothing that it started is left."""
    status, end = None, time.monotonic() + deadline
    try:
        while status is None and time.monotonic() < end:
            done, code = os.waitpid(child, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(code)
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if status is None:
            os.waitpid(child, 0)
    return status


def outcome_of(mutant: Mutant, copy: Path) -> Outcome:
    """Plant a mutant in the copy, run its tests and take it out again."""
    path = copy / "gentrain" / mutant.file
    text = path.read_text()
    try:
        path.write_text(mutant.planted_in(text))
        return run_tests(copy, mutant.tests)
    finally:
        path.write_text(text)


def copy_project(copy: Path) -> None:
    """Copy what tests need; compiled files are checked by content, so that a fault planted within a second is seen."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    checked = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(copy / "gentrain", quiet=1, invalidation_mode=checked)


def table_of(outcomes: Sequence[tuple[Mutant, Outcome]]) -> str:
    """Return the page: the score, every mutant with the test that noticed it, the survivors with their reasons."""
    noticed = sum(outcome.noticed for _, outcome in outcomes)
    lines = [HEAD.format(noticed=noticed, count=len(outcomes), share=100 * noticed / len(outcomes))]
    survivors = [mutant for mutant, outcome in outcomes if not outcome.noticed]
    if survivors:
        lines += ["## Survivors", "", "| fault | module | why |", "|---|---|---|"]
        lines += [f"| {m.fault} | `{m.file}` | {m.survives or 'no test notices it'} |" for m in survivors]
        lines.append("")
    lines += ["## Noticed", "", "| fault | module | first test that fails |", "|---|---|---|"]
    lines += [f"| {m.fault} | `{m.file}` | `{o.test}` |" for m, o in outcomes if o.noticed]
    return "\n".join(lines) + "\n"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(words: Sequence[str]) -> int:
    """Run the mutants that have one of the words, all without words; return the exit status."""
    chosen = [m for m in MUTANTS if not words or any(w in " ".join((m.fault, m.file, *m.tests)) for w in words)]
    if problems := problems_of(MUTANTS, ROOT / "gentrain"):
        raise SystemExit("\n".join(problems))
    for name in LOADED_ONCE:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="gentrain-mutants-") as folder:
        copy = Path(folder)
        copy_project(copy)
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        clean = run_tests(copy, tests, deadline=CLEAN_DEADLINE)
        if clean.noticed:
            raise SystemExit(f"{clean.test} fails without any fault\n{clean.output}")
        outcomes = []
        for number, mutant in enumerate(chosen, 1):
            started = time.monotonic()
            outcome = outcome_of(mutant, copy)
            outcomes.append((mutant, outcome))
            seconds, said = time.monotonic() - started, outcome.test or f"SURVIVED {mutant.survives}"
            _say(f"{number}/{len(chosen)} {seconds:4.0f} s  {mutant.file}: {mutant.fault}: {said}")
    unexplained = [mutant for mutant, outcome in outcomes if not outcome.noticed and not mutant.survives]
    needless = [mutant for mutant, outcome in outcomes if outcome.noticed and mutant.survives]
    for mutant in needless:
        _say(f"{mutant.fault}: is noticed now; take its reason for surviving out")
    _say(f"{sum(outcome.noticed for _, outcome in outcomes)} of {len(outcomes)} noticed")
    if not words:
        TABLE.write_text(table_of(outcomes))
    return 1 if unexplained or needless else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
