"""gentrain: knowledge distillation in generations, scheduled on Ray."""

__version__ = "0.1.0"

METHOD_VERSION = 1
"""Bumped by hand, with a changelog line, whenever the code changes the numbers that a generation ends in."""
