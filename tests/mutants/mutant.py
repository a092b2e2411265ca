"""Plant one fault in a module's text."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One planted fault, and the tests that should notice it."""

    fault: str
    """What is wrong with it in place."""
    file: str
    """The module, below gentrain/."""
    old: str
    """Text that stands in the module exactly once."""
    new: str
    tests: tuple[str, ...]
    """Test files or tests, below tests/."""
    survives: str = ""
    """Why no test can notice it, where that is so."""

    def planted_in(self, text: str) -> str:
        """Return the module's text with the fault.

        Raises:
            ValueError: where the old text doesn't stand there exactly once, or nothing would change.
        """
        if (count := text.count(self.old)) != 1:
            raise ValueError(
                f"mutant {self.fault!r}: its old text stands {count} times in gentrain/{self.file}, not once; "
                f"adapt it in tests/mutants/ to the code as it is now: {self.old!r}"
            )
        if self.new == self.old:
            raise ValueError(f"mutant {self.fault!r}: changes nothing")
        return text.replace(self.old, self.new)


def problems_of(mutants: Iterable[Mutant], package: Path) -> list[str]:
    """Return a line for each mutant that can't be planted, or makes no valid module."""
    problems = []
    for mutant in mutants:
        path = package / mutant.file
        try:
            compile(mutant.planted_in(path.read_text()), str(path), "exec")
        except (OSError, ValueError, SyntaxError) as error:
            problems.append(str(error))
    return problems
