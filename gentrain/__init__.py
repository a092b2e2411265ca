"""gentrain: knowledge distillation in generations, scheduled on Ray."""

__version__ = "0.1.0"
