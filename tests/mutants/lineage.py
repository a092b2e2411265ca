"""Faults of the theory and of what a generation is made from."""

from tests.mutants.mutant import Mutant

PROCESS = ("study/test_process.py",)
LINEAGE = ("study/test_lineage.py", "study/test_keys.py")

MUTANTS = (
    Mutant("η is that of K-1", "study/process.py", "(k - 1) / (k * f_a1 + k - 1)", "(k - 1) / (k * f_a1 + k)", PROCESS),
    Mutant("D(1.0, ·) has an η", "study/process.py", "0.0 if f_a1 == 1 else (k - 1)", "(k - 1)", PROCESS),
    Mutant(
        "the energy is multiplied by 1-λ",
        "study/process.py",
        "energies.append(lam * (",
        "energies.append((1 - lam) * (",
        PROCESS,
    ),
    Mutant(
        "an ensemble's energy is its last member's",
        "study/process.py",
        'energies[-1] if whom == "previous" else',
        "energies[-1] if True else",
        PROCESS,
    ),
    Mutant(
        "a cosine rises from its end",
        "study/process.py",
        "(1 - math.cos(math.pi * step)) / 2",
        "(1 + math.cos(math.pi * step)) / 2",
        PROCESS,
    ),
    Mutant(
        "a chain saturates a generation early",
        "study/process.py",
        "len(validation_errors) <= patience",
        "len(validation_errors) < patience",
        PROCESS,
    ),
    Mutant(
        "a student learns from the patriarch",
        "study/tasks.py",
        "teacher=teachers[-1]",
        "teacher=teachers[0]",
        LINEAGE,
    ),
    Mutant(
        "all students have the first λ",
        "study/lineage.py",
        "student_spec(study, lam=lam,",
        "student_spec(study, lam=weights[-1] if weights[-1] is None else weights[0],",
        LINEAGE,
    ),
    Mutant("K is part of a strict patriarch's key", "study/tasks.py", "eta=0.0, k=None", "eta=0.0, k=k", LINEAGE),
    Mutant(
        "the members of an ensemble are not in its student's key",
        "study/tasks.py",
        "if ensemble else ()",
        "if False else ()",
        LINEAGE,
    ),
    Mutant(
        "the temperature isn't in the spec",
        "study/tasks.py",
        "temperature=study.process.temperature",
        "temperature=1.0",
        LINEAGE,
    ),
    Mutant(
        "the seed isn't in the spec",
        "study/lineage.py",
        "            seed=study.seed,\n",
        "            seed=0,\n",
        LINEAGE,
    ),
    Mutant(
        "students have the patriarch's network",
        "study/lineage.py",
        "study.network_of(generation)",
        "study.network.name",
        LINEAGE,
    ),
    Mutant(
        "every student learns from the ensemble where the last should",
        "study/process.py",
        "(self.last and last and self.last.teacher)",
        "(self.last and self.last.teacher)",
        ("study/test_last.py",),
    ),
    Mutant("an adaptive K may exceed the classes", "study/tasks.py", "min(k.k_max, num_classes)", "k.k_max", LINEAGE),
    Mutant(
        "predictions start from the aim though networks are given",
        "study/lineage.py",
        "start = measured[:pretrained] if pretrained else",
        "start = (process.f_a1,) * pretrained if pretrained else",
        ("running/test_pretrained.py",),
    ),
    Mutant(
        "w_g is predicted at temperatures for which it doesn't hold",
        "study/lineage.py",
        " or process.temperature != 1 or",
        " or",
        ("report/test_report.py::test_students_at_another_temperature_have_no_prediction",),
    ),
)
