"""D(f_a1, λ): the closed forms that link a process's two parameters to losses and predicted energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def eta_for_primary(f_a1: float, *, k: int = 5) -> float:
    """Return the η whose patriarch loss has its optimum at primary score `f_a1`: η(f) = (K-1) / (K f + K - 1).

    D(1.0, ·) means η = 0, plain cross-entropy, though every η up to (K-1)/(2K-1) has its optimum there.

    Raises:
        ValueError: when `f_a1` is not in (1/K, 1], or K < 2.
    """
    _check_k(k)
    if not 1 / k < f_a1 <= 1:
        raise ValueError(f"f_a1 is {f_a1}; it must lie above 1/K = {1 / k:g} (K = {k}) and be at most 1")
    return 0.0 if f_a1 == 1 else (k - 1) / (k * f_a1 + k - 1)


def primary_for_eta(eta: float, *, k: int = 5) -> float:
    """Return u(η) = min(1, (1-η)(K-1) / (η K)), the primary score at which eq. (3) has its optimum.

    Raises:
        ValueError: when η is not in [0, 1), or K < 2.
    """
    _check_k(k)
    if not 0 <= eta < 1:
        raise ValueError(f"eta is {eta}; it must lie in [0, 1)")
    return 1.0 if eta == 0 else min(1.0, (1 - eta) * (k - 1) / (eta * k))


def predicted_primary(f_a1: float, *, lam: float | Sequence[float], generation: int) -> float:
    """Return w_g = 1 - (1 - f_a1)·λ^g, the primary score after g generations (λ_1·…·λ_g where λ is a sequence)."""
    if generation < 0:
        raise ValueError(f"generation is {generation}; generations count from 0")
    kept = 1.0
    for g in range(generation):
        kept *= lam[g] if isinstance(lam, Sequence) else lam
    return f_a1 + (1 - f_a1) * (1 - kept)


@dataclass(frozen=True)
class Process:
    """One parametrised process: the patriarch's aim, the teacher's weight (a tuple: by generation), K, temperature."""

    f_a1: float
    lam: float | tuple[float, ...]
    k: int = 5
    temperature: float = 1.0

    @property
    def eta(self) -> float:
        """Weight of the score difference in eq. (3)."""
        return eta_for_primary(self.f_a1, k=self.k)

    @property
    def label(self) -> str:
        """The paper's name, such as D(0.6,0.6)."""
        lam = "-".join(map(_shortest, self.lam)) if isinstance(self.lam, tuple) else _shortest(self.lam)
        return f"D({_shortest(self.f_a1)},{lam})"

    def lam_at(self, generation: int) -> float:
        """Return the teacher's weight in the loss of student `generation`, counted from 1."""
        return self.lam[generation - 1] if isinstance(self.lam, tuple) else self.lam

    def predicted_primary(self, generation: int) -> float:
        """Return w_g."""
        return predicted_primary(self.f_a1, lam=self.lam, generation=generation)


def _check_k(k: int) -> None:
    if k < 2:
        raise ValueError(f"k is {k}; there must be a primary and at least one secondary class: k >= 2")


def _shortest(value: float) -> str:
    return repr(float(value))


def saturated(validation_errors: Sequence[float], *, patience: int | None) -> bool:
    """Return whether no generation of the last `patience` beat the best held-out error before them."""
    if patience is None or len(validation_errors) <= patience:
        return False
    return min(validation_errors[-patience:]) >= min(validation_errors[:-patience])
