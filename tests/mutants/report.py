"""Faults of the report."""

from tests.mutants.mutant import Mutant

REPORT = ("report/test_report.py",)

MUTANTS = (
    Mutant(
        "the ensemble gain has the other sign",
        "report/records.py",
        "single.values[seed] - error",
        "error - single.values[seed]",
        REPORT,
    ),
    Mutant("the spread divides by n", "report/records.py", "statistics.stdev", "statistics.pstdev", REPORT),
    Mutant(
        "the baseline is any patriarch",
        "report/records.py",
        "if group.first.strict else None",
        "if True else None",
        REPORT,
    ),
    Mutant(
        "differences are the paper's minus ours",
        "report/rows.py",
        "else self.value - self.published",
        "else self.published - self.value",
        REPORT,
    ),
    Mutant(
        "errors are fractions",
        "report/tables.py",
        "published: float | None = None, *, scale: float = 100)",
        "published: float | None = None, *, scale: float = 1)",
        REPORT,
    ),
    Mutant(
        "the baseline's difference has the other sign",
        "report/tables.py",
        "value - other.values[seed]",
        "other.values[seed] - value",
        REPORT,
    ),
    Mutant(
        "the paper's rows move by a generation",
        "report/published.py",
        "figures[generation] if",
        "figures[generation - 1] if",
        REPORT,
    ),
    Mutant(
        "missing seeds aren't marked",
        "report/tables.py",
        "partial=spread.n < len(group.chains)",
        "partial=False",
        REPORT,
    ),
    Mutant(
        "top-1 is shown as top-5",
        "report/tables.py",
        '_errors(report, network, groups, "top5_error"',
        '_errors(report, network, groups, "top1_error"',
        REPORT,
    ),
)
