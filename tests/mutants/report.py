"""Faults of the report."""

from tests.mutants.mutant import Mutant

REPORT = ("report/test_report.py",)
DIFFERENCES = ("report/test_differences.py",)
SPREAD = ("scores/test_spread.py",)

MUTANTS = (
    Mutant(
        "the ensemble gain has the other sign",
        "report/records.py",
        "paired_difference(single, ensemble)",
        "paired_difference(ensemble, single)",
        REPORT,
    ),
    Mutant("the spread divides by n", "scores/spread.py", "statistics.stdev", "statistics.pstdev", REPORT),
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
        "scores/spread.py",
        "value - other.values[seed]",
        "other.values[seed] - value",
        REPORT,
    ),
    Mutant(
        "intervals have n degrees of freedom",
        "scores/spread.py",
        "stdtrit(self.n - 1,",
        "stdtrit(self.n,",
        SPREAD,
    ),
    Mutant("intervals are one-sided", "scores/spread.py", "(1 + LEVEL) / 2", "LEVEL", SPREAD),
    Mutant("intervals are of one seed, not of the mean", "scores/spread.py", " / math.sqrt(self.n)", "", SPREAD),
    Mutant(
        "seeds that one side lacks count as 0",
        "scores/spread.py",
        "value - other.values[seed] for seed, value in spread.values.items() if seed in other.values}",
        "value - other.values.get(seed, 0.0) for seed, value in spread.values.items()}",
        (*SPREAD, *DIFFERENCES),
    ),
    Mutant(
        "seeds that are left out aren't named",
        "report/differences.py",
        "if unpaired else []",
        "if False else []",
        DIFFERENCES,
    ),
    Mutant(
        "figure 2's bars are deviations",
        "report/figures.py",
        "(place, *spread.interval)",
        "(place, -spread.std, spread.std)",
        DIFFERENCES,
    ),
    Mutant(
        "the paper's rows move by a generation",
        "results/published.py",
        "figures[generation] if",
        "figures[generation - 1] if",
        REPORT,
    ),
    Mutant(
        "missing seeds aren't marked",
        "report/tables.py",
        "partial=spread is not None and spread.n < seeds",
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
