"""Faults planted on purpose, to see that tests notice them: `make mutants`."""

from tests.mutants import checkpoints, engine, images, lineage, losses, report, scores, search

MUTANTS = (
    *engine.MUTANTS,
    *losses.MUTANTS,
    *checkpoints.MUTANTS,
    *images.MUTANTS,
    *scores.MUTANTS,
    *lineage.MUTANTS,
    *report.MUTANTS,
    *search.MUTANTS,
)
