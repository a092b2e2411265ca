"""Published figures of common GPUs, for a first guess where nothing was timed.

Peak figures without sparsity, from NVIDIA's data sheets: V100 (2020), T4 (2019), A100 (SXM 80 GB, 2022), H100 (SXM,
2023), L4 (2023), and from the white papers of the GA102 (GeForce RTX 3090, 2021) and Ada (RTX 4090, 2022)
architectures, there with fp32 accumulation. A card without bf16 or TF32 units is taken to compute them in fp32.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from gentrain.errors import ConfigError, shown

_DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Card:
    """Peak figures of a GPU."""

    name: str
    fp32: float
    """Floating-point operations a second, as `tf32` and `bf16`: a multiply-add is two."""
    tf32: float
    bf16: float
    bandwidth: float
    """Of its memory, in bytes a second."""

    def peak(self, precision: str) -> float:
        """Return the floating-point operations a second in a study's precision."""
        return {"fp32": self.fp32, "tf32": self.tf32, "bf16": self.bf16}[precision]


CARDS = (
    Card("V100", 15.7e12, 15.7e12, 15.7e12, 900e9),
    Card("T4", 8.1e12, 8.1e12, 8.1e12, 320e9),
    Card("A100", 19.5e12, 156e12, 312e12, 2039e9),
    Card("H100", 67e12, 494.7e12, 989.4e12, 3350e9),
    Card("L4", 30.3e12, 60e12, 121e12, 300e9),
    Card("RTX 3090", 35.6e12, 35.6e12, 71e12, 936.2e9),
    Card("RTX 4090", 82.6e12, 82.6e12, 165.2e12, 1008e9),
)


def find_card(name: str) -> Card:
    """Return the card of a name such as a100, "rtx 3090" or "NVIDIA A100-SXM4-40GB".

    Raises:
        ConfigError: for an unknown one, naming those there are.
    """
    card = _match(name)
    if card is None:
        known = [card.name for card in CARDS]
        near = difflib.get_close_matches(name.upper(), known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"--card {shown(name)}: not known; {hint}known: {', '.join(known)}")
    return card


def card_here() -> Card | None:
    """Return the first GPU that NVIDIA's driver lists on this machine, where it is a known one."""
    with contextlib.suppress(OSError):
        for file in sorted(_DRIVER.glob("*/information")):
            model = re.search(r"^Model:\s*(.+)$", file.read_text(errors="replace"), re.MULTILINE)
            if model and (card := _match(model[1])):
                return card
    return None


def _match(name: str) -> Card | None:
    plain = re.sub(r"[^a-z0-9]+", " ", name.lower().replace("rtx", "rtx "))
    return next((c for c in CARDS if re.search(rf"\b{re.sub(' +', ' +', c.name.lower())}\b", plain)), None)
