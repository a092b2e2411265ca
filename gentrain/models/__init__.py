"""Build networks by name; count, fold, fuse and average them.

May touch: torch, torchvision, `upstream` and `errors`.
May not touch: studies, stores, data or training.
"""

from gentrain.models.registry import build_model

__all__ = ["build_model"]
