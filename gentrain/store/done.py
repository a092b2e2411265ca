"""DONE.json: the record that vouches for a finished generation's files, and for itself by a digest."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gentrain.store.folder import digest, mapping_digest

MODEL = "model.safetensors"
AVERAGE = "average.safetensors"
"""Averaged weights that teach the next generation (`recipe.ema`), where they aren't the generation's result."""
PREDICTIONS = "predictions.parquet"
VALIDATION_PREDICTIONS = "validation_predictions.parquet"
EPOCHS = "epochs.parquet"
SPEC = "spec.json"
DATA = "data.json"
"""Describes the data that the network was trained on: a copy of the prepared dataset's manifest, with its own digest,
which no record names (version 0.1 wrote none, and runs add it)."""
DONE = "DONE.json"

FILES = frozenset({MODEL, AVERAGE, PREDICTIONS, VALIDATION_PREDICTIONS, EPOCHS, SPEC})
"""Names that a record may vouch for."""

Error = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Mean = Annotated[float, Field(ge=0, le=1.001, allow_inf_nan=False)]
"""Of values in [0, 1], summed in float32."""
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileDigest(_Strict):
    """Size and checksum of a finished file."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Rollback(_Strict):
    """A return to the last checkpoint of a training that diverged, with half the learning rate from there on."""

    epoch: Annotated[int, Field(ge=1)]
    """That diverged, counted from 1."""
    reason: str


class _Scores(_Strict):
    """The scores that a record must hold, and their ranges."""

    top1_error: Error
    top5_error: Error
    nll: NonNegative
    ece: Mean
    primary: Mean


class Done(_Strict):
    """The record that is written last, when a generation is whole."""

    key: str
    files: dict[str, FileDigest]
    scores: dict[str, float]
    validation_scores: dict[str, float] | None = None
    train_primary: Mean
    seconds: NonNegative
    workers: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=0)]
    device: str
    versions: dict[str, str]
    rollbacks: tuple[Rollback, ...] = ()
    """In their order; left out of the file where there are none."""
    compiled_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs that were trained through torch.compile: all or none, but for a training that went on elsewhere. Left out
    of the file where there are none; records of before don't have it, and `spec.json` says `compile: true` then."""
    checksum_names: bool = False
    """Whether the files' names carry their checksums (`place`), as on S3: who writes such a name writes those bytes.
    Left out of the file where they don't."""
    digest: str | None = None
    """sha256 of the canonical JSON of all else; None in records that version 0.1 wrote."""

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for scores in (self.scores, self.validation_scores):
            if scores is not None:
                _Scores.model_validate(scores)
        if MODEL not in self.files or not self.files.keys() <= FILES:
            raise ValueError(f"files: must be of {', '.join(sorted(FILES))}, with {MODEL}")
        if self.digest is None and SPEC in self.files:
            raise ValueError("digest: missing; only records that don't cover spec.json have none")
        return self

    @model_serializer(mode="wrap")
    def _stored(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        form: dict[str, Any] = serialise(self)
        for name in ("rollbacks", "compiled_epochs", "checksum_names"):
            if not form[name]:
                del form[name]
        return form

    @classmethod
    def parse(cls, content: bytes | None, *, key: str) -> Done | None:
        """Return the record in `content`.

        Returns:
            None where it is missing, doesn't match its digest, lacks a field, has an unknown one or a value out of
            range, or is another generation's.
        """
        try:
            mapping = json.loads(content or b"")
        except (ValueError, RecursionError):  # text that isn't JSON, or isn't UTF-8
            return None
        return cls.of_mapping(mapping, key=key)

    @classmethod
    def of_mapping(cls, mapping: Any, *, key: str) -> Done | None:
        """Return what `parse` does, of a record's JSON."""
        try:
            done = cls.model_validate(mapping)
        except (ValueError, RecursionError):
            return None
        if done.digest is not None and done.digest != mapping_digest(mapping):
            return None
        return done if done.key == key else None

    @classmethod
    def sealed(cls, **fields: Any) -> Done:
        """Return a record with the digest of its fields.

        Raises:
            ValueError: where a field is missing or out of range.
        """
        unsealed = cls(**fields, digest="").model_dump()
        return cls(**fields, digest=mapping_digest(unsealed))

    def place(self, name: str) -> str:
        """Return the name in the folder of one of the record's files."""
        if not self.checksum_names or name not in self.files:
            return name
        stem, dot, suffix = name.rpartition(".")
        return f"{stem}.{self.files[name].sha256[:16]}{dot}{suffix}"

    def covering_spec(self, content: bytes, **facts: Any) -> Done:
        """Return this record with spec.json's `content` among its files, other `facts`, and the digest of that."""
        return self._changed(**facts, files={**self.files, SPEC: FileDigest(**describe(content))})

    def with_plain_names(self) -> Done:
        """Return this record for a folder whose files have the names by which the record has them."""
        return self._changed(checksum_names=False) if self.checksum_names else self

    def _changed(self, **changes: Any) -> Done:
        fields = {name: getattr(self, name) for name in type(self).model_fields if name != "digest"}
        return Done.sealed(**fields | changes)


def describe(content: bytes) -> dict[str, Any]:
    """Return the fields of a `FileDigest`."""
    return {"sha256": digest(content), "bytes": len(content)}
