"""Write tables as text: Markdown and LaTeX line by line, CSV with one record for each cell."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence

from gentrain.report.rows import RECORD_FIELDS, ReportTable

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "λ": r"$\lambda$", "–": "--", "−": "$-$",
    "·": r"$\cdot$", "→": r"$\to$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def markdown(tables: Sequence[ReportTable]) -> str:
    """Return the tables as GitHub Markdown, each under a heading."""
    parts = []
    for table in tables:
        lines = [f"## {_mark(table.title)}", "", _bar(["", *table.columns])]
        lines.append("|---|" + "---:|" * len(table.columns))
        for line in table.lines():
            label = _mark(line.label.strip())
            texts = [f"**{text}**" if bold else text for text, bold in line.bold()]
            lines.append(_bar([f"&nbsp;&nbsp;{label}" if line.label.startswith(" ") else label, *texts]))
        lines += ["", *(f"{_mark(note)}  " for note in table.notes)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def latex(tables: Sequence[ReportTable]) -> str:
    """Return the tables as LaTeX for a UTF-8 document; needs no packages."""
    parts = []
    for table in tables:
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(table.title)}. {_tex(' '.join(table.notes))}}}"]
        lines += [rf"\label{{tab:{table.id}}}", rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\hline"]
        lines += [" & ".join(["", *map(_tex, table.columns)]) + r" \\", r"\hline"]
        for line in table.lines():
            label = rf"\quad {_tex(line.label.strip())}" if line.label.startswith(" ") else _tex(line.label)
            texts = [rf"\textbf{{{_tex(text)}}}" if bold else _tex(text) for text, bold in line.bold()]
            lines.append(" & ".join([label, *texts]) + r" \\")
        parts.append("\n".join([*lines, r"\hline", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


def comma_separated(tables: Sequence[ReportTable]) -> str:
    """Return a CSV record for each cell: mean, spread, published value, interval; errors in per cent, not rounded."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, RECORD_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(record for table in tables for record in table.records())
    return stream.getvalue()


FORMATS: dict[str, tuple[str, Callable[[Sequence[ReportTable]], str]]] = {
    "markdown": ("tables.md", markdown),
    "csv": ("tables.csv", comma_separated),
    "latex": ("tables.tex", latex),
}
"""By format: the file name in the report's folder, and the function that returns its text."""


def _bar(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mark(text: str) -> str:
    return re.sub(r"([\\|*_`<\[])", r"\\\1", text)


def _tex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
