"""Private names of other libraries: looked up when they are imported, with one clear error where one is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from gentrain.errors import DependencyError


@dataclass(frozen=True)
class Library:
    """A library of which gentrain uses private names, and the versions that have them."""

    name: str
    works: str
    """Versions as in pyproject.toml, such as >=1.0.2,<1.1."""

    def private(self, owner: Any, name: str) -> Any:
        """Return the attribute `name` of a module or class.

        Raises:
            DependencyError: when it isn't there.
        """
        try:
            return getattr(owner, name)
        except AttributeError:
            raise self.gone(f"{getattr(owner, '__qualname__', owner.__name__)}.{name}") from None

    def check_used(self, function: Callable[..., Any], *names: str) -> None:
        """Check that a Python function of the library still uses these attributes: those that only instances have.

        Raises:
            DependencyError: when it doesn't.
        """
        for name in names:
            if name not in function.__code__.co_names:
                raise self.gone(f"{function.__qualname__}'s {name}")

    @contextlib.contextmanager
    def modules(self) -> Iterator[None]:
        """Import the library's modules in this block.

        Raises:
            DependencyError: when the library is there, but not one of its modules.
        """
        try:
            yield
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith(f"{self.name}."):
                raise
            raise self.gone(error.name) from error

    def gone(self, name: str) -> DependencyError:
        """Return the error that says that the library has no such name."""
        try:
            installed = metadata.version(self.name)
        except metadata.PackageNotFoundError:
            installed = "of an unknown version"
        return DependencyError(
            f"{self.name} {installed} has no {name}, which gentrain uses; versions that work: {self.works} "
            f"(pip install '{self.name}{self.works}')"
        )
