"""An object store that misbehaves, and judges every change of a generation's record by itself."""

from __future__ import annotations

import hashlib
from functools import partial

from gentrain.store.claims import CLAIM_SECONDS
from gentrain.store.conditional import UnansweredError, Versioned
from gentrain.store.record import RECORD, Record
from tests.running.simulation import Clock


class Bucket:
    """The object store: content by path, tagged by its digest as S3 does, and a judge of every record."""

    def __init__(self, clock: Clock, *, ignored: str = "") -> None:
        self.clock, self.ignored = clock, ignored
        self.objects: dict[str, bytes] = {}
        self.changed: dict[str, float] = {}
        self.damaged: set[str] = set()
        self.rebuilt: set[str] = set()
        """Keys of which a file was damaged: their DONE may be replaced."""
        self.tokens: dict[str, object] = {}
        """Who was granted each claim."""
        self.refused = self.unanswered = self.takeovers = self.late = 0

    def holds(self, path: str, etag: str | None) -> bool:
        """Return whether a write's condition holds, or isn't looked at."""
        content = self.objects.get(path)
        if etag is None:
            return content is None or self.ignored == "If-None-Match"
        return (content is not None and _etag(content) == etag) or self.ignored == "If-Match"

    def put(self, path: str, content: bytes, writer: object) -> None:
        if path.endswith(RECORD):
            self._judge(path, content, writer)
        self.objects[path] = content
        self.changed[path] = self.clock.now
        self.damaged.discard(path)

    def damage(self, path: str) -> None:
        if path in self.objects:
            self.objects[path] += b"?"
            self.damaged.add(path)
            self.rebuilt.add(path.partition("/")[0])

    def _judge(self, path: str, content: bytes, writer: object) -> None:
        key = path.partition("/")[0]
        new = Record.model_validate_json(content)
        old = Record.model_validate_json(self.objects[path]) if path in self.objects else Record(key=key)
        if new.done != old.done:
            holder = self.tokens.get(old.claim.token) if old.claim else None
            assert holder is writer, f"{key}: {writer} writes DONE under the claim of {holder}"
            assert new.claim == old.claim, f"{key}: DONE changes the claim"
            assert old.done is None or key in self.rebuilt, f"{key}: two writers won: {writer} replaced a sound DONE"
        if new.claim is None or (old.claim and new.claim.token == old.claim.token):
            assert new.term == old.term, f"{key}: {writer} changes the term without a claim"
            holder = self.tokens.get(old.claim.token) if old.claim else None
            assert holder is writer, f"{key}: {writer} renews or releases the claim of {holder}"
            return
        assert new.term == old.term + 1, f"{key}: {writer} claims term {new.term} after {old.term}"
        assert new.claim.token not in self.tokens, "a token came back"
        self.tokens[new.claim.token] = writer
        if old.claim is not None:
            asleep = self.clock.now - self.changed[path]
            assert asleep >= CLAIM_SECONDS, f"{key}: {writer} took a claim over that changed {asleep:.1f} s before"
            self.takeovers += 1


class Client:
    """One process's requests to the bucket; implements `ConditionalObjects`."""

    def __init__(self, bucket: Bucket, process: object, trouble: float) -> None:
        self.bucket, self.process, self.trouble = bucket, process, trouble

    def pause(self) -> None:
        draw = self.bucket.clock.random
        self.process.sleep(draw.expovariate(20))

    def read(self, path: str) -> Versioned | None:
        self.pause()
        content = self.bucket.objects.get(path)
        return None if content is None else Versioned(content, _etag(content))

    def write(self, path: str, content: bytes, etag: str | None) -> Versioned | None:
        self.pause()
        bucket, draw = self.bucket, self.bucket.clock.random
        fate = draw.choice(["lost", "late", "unanswered", "sent twice"]) if draw.random() < self.trouble else "done"
        if fate in ("lost", "late"):
            if fate == "late":
                bucket.clock.after(draw.expovariate(1 / 20), partial(self._late, path, content, etag))
            bucket.unanswered += 1
            raise UnansweredError(path)
        done = bucket.holds(path, etag)
        if done:
            bucket.put(path, content, self.process)
        if fate == "unanswered":
            bucket.unanswered += 1
            raise UnansweredError(path)
        if not done or fate == "sent twice":  # the client sent it again by itself
            bucket.refused += 1
            return None
        return Versioned(content, _etag(content))

    def _late(self, path: str, content: bytes, etag: str | None) -> None:
        if self.bucket.holds(path, etag):
            self.bucket.late += 1
            self.bucket.put(path, content, self.process)


def _etag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
