"""Check and compare the names of classes, which come from folders and files and are shown in tables, pages and JSON."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from gentrain.errors import DataError, printable, shown


def check_names(names: Iterable[str], *, where: str) -> None:
    """Check that names can be written, each on one line, and can be told apart.

    Args:
        names: of classes or groups.
        where: for messages.

    Raises:
        DataError: for a name that isn't UTF-8, holds a control character or is empty, or two in other Unicode forms.
    """
    forms: dict[str, str] = {}
    for name in names:
        if printable(name) != name or not name.strip():
            kind = "isn't UTF-8" if any("\ud800" <= c <= "\udfff" for c in name) else "holds a control character"
            raise DataError(f"{where}: a class's name {kind if name.strip() else 'is empty'}: {shown(name)}; rename it")
        if forms.setdefault(normal_form(name), name) != name:
            raise DataError(f"{where}: two classes are named {shown(name)}, in two Unicode forms; rename one of them")


def normal_form(name: str) -> str:
    """Return a name in Unicode's composed form, NFC, by which names are compared."""
    return unicodedata.normalize("NFC", name)
