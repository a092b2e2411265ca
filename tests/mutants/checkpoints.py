"""Faults of checkpoints, records and the files that they vouch for."""

from tests.mutants.mutant import Mutant

CHECKPOINT = ("train/test_checkpoint.py",)
FENCED = ("store/test_conditional.py",)
STORE = ("store/test_store.py",)

AVERAGE = ("train/test_average.py",)

MUTANTS = (
    Mutant(
        "the average's decay is ignored", "train/companions.py", "value, 1 - self._ema.decay", "value, 1e-3", AVERAGE
    ),
    Mutant(
        "the average has the initial weights' statistics", "train/companions.py", "kept.copy_(buffer)", "pass", AVERAGE
    ),
    Mutant(
        "a resumed average begins as the model",
        "train/state.py",
        "load_training_state(model, optimizer, content, companions=networks)",
        "load_training_state(model, optimizer, content)",
        AVERAGE,
    ),
    Mutant(
        "the average teaches nobody",
        "train/inference.py",
        "load_network(key, store, teaching=True)",
        "load_network(key, store)",
        AVERAGE,
    ),
    Mutant(
        "momentum isn't saved",
        "train/checkpoint.py",
        "if state.get(key) is not None",
        "if False",
        CHECKPOINT,
    ),
    Mutant(
        "momentum isn't restored",
        "train/checkpoint.py",
        "like.copy_(value)",
        "torch.zeros_like(like)",
        CHECKPOINT,
    ),
    Mutant("AdamW's squares aren't saved", "train/checkpoint.py", '"exp_avg_sq": "exp_avg_sq", ', "", CHECKPOINT),
    Mutant(
        "another generation's checkpoint is taken",
        "train/checkpoint.py",
        'metadata.get("key", key) != key',
        "False",
        CHECKPOINT,
    ),
    Mutant(
        "another epoch's checkpoint is taken",
        "train/checkpoint.py",
        'metadata.get("epoch", epoch) != epoch',
        "False",
        CHECKPOINT,
    ),
    Mutant("a checkpoint that lacks rows is taken", "train/checkpoint.py", "or len(rows) != epoch", "", CHECKPOINT),
    Mutant(
        "a checkpoint that isn't finite is taken",
        "train/checkpoint.py",
        "if not tensor.isfinite().all()",
        "if False",
        ("train/test_checkpoint.py::test_another_network_and_an_exploded_one_are_damaged",),
    ),
    Mutant(
        "the oldest checkpoint is taken",
        "store/checkpoints.py",
        "reversed(_names(folder))",
        "_names(folder)",
        STORE,
    ),
    Mutant(
        "a checkpoint's checksum isn't compared",
        "store/checkpoints.py",
        "digest(content)[:16] == checksum",
        "True",
        STORE,
    ),
    Mutant(
        "only the newest checkpoint is kept",
        "store/checkpoints.py",
        "KEPT = 2",
        "KEPT = 1",
        STORE,
    ),
    Mutant(
        "a former owner may write",
        "store/record.py",
        'if (self._folder / "train").read(OWNER) != token.encode():',
        "if False:",
        STORE,
    ),
    Mutant(
        "a writer that lost its claim on S3 records its result",
        "store/record.py",
        "            if not record.held_by(token):\n                raise taken_over",
        "            if False:\n                raise taken_over",
        FENCED,
    ),
    Mutant(
        "a claim on S3 that another holds is taken",
        "store/claims.py",
        "if record.claim is not None and not self._lapsed(etag):",
        "if False:",
        FENCED,
    ),
    Mutant("damaged files count as whole", "store/generation.py", "and digest(content) == file.sha256", "", STORE),
    Mutant(
        "a record that doesn't match its digest is taken",
        "store/done.py",
        "done.digest != mapping_digest(mapping)",
        "False",
        ("store/test_records.py",),
    ),
    Mutant(
        "another generation's record is taken",
        "store/done.py",
        "return done if done.key == key else None",
        "return done",
        STORE,
    ),
)
