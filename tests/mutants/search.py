"""Faults of the search."""

from tests.mutants.mutant import Mutant

DRAWS = ("study/test_search.py",)
SEARCH = ("running/test_search.py",)

MUTANTS = (
    Mutant(
        "a search is scored by the test split", "running/search.py", '["validation_error"]', '["top1_error"]', SEARCH
    ),
    Mutant(
        "a search is scored by the patriarch",
        "running/search.py",
        'row["generation"] > last[row["chain"]]["generation"]',
        'row["generation"] < last[row["chain"]]["generation"]',
        SEARCH,
    ),
    Mutant("a search exceeds its budget", "running/search.py", "len(keys) > search.budget", "len(keys) > 100", SEARCH),
    Mutant(
        "shared trainings count each time",
        "running/search.py",
        "len(keys) > search.budget",
        "len(keys) + len(batch) > search.budget",
        SEARCH,
    ),
    Mutant("a resumed search begins again", "running/search.py", "return recorded.grid.process", "return own", SEARCH),
    Mutant("a search proposes what it knows", "study/search.py", "if proposal not in known", "if True", DRAWS),
    Mutant(
        "draws depend on how many are known",
        "study/search.py",
        "default_rng([search.seed, index])",
        "default_rng([search.seed, index, len(known)])",
        DRAWS,
    ),
    Mutant(
        "ranges with log are drawn without",
        "study/search.py",
        "        if self.log:\n            return",
        "        if False:\n            return",
        DRAWS,
    ),
    Mutant(
        "what failed in a batch is tried in the next",
        "running/study.py",
        "skip=stopped | failed.keys()",
        "skip=stopped",
        SEARCH,
    ),
)
