"""Turn TeX between dollar signs into MathML, which browsers draw without a script, on pages that say `formulas: true`.

A hook of MkDocs; the same formulas show on GitHub as they stand.
"""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r"\$\$(?P<display>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.DOTALL)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the page with MathML in place of TeX."""
    return FORMULA.sub(_mathml, markdown) if page.meta.get("formulas") else markdown


def _mathml(match: re.Match[str]) -> str:
    """Return a formula as MathML."""
    if match["display"]:
        return convert(match["display"].strip(), display="block")
    return f"<span>{convert(match['inline'])}</span>"  # Markdown takes a line that starts with <math> for a block
