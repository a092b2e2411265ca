"""From a plot to PNG, SVG, and an SVG in the page's colours. Matplotlib without pyplot: nothing global stays."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, FAINT = "#1b1f24", "#c3cad3"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa3377", "#7a5c00", "#56657a")
"""For white paper, told apart by the colour-blind, three to one against the paper at least; markers differ too."""
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "*": "★"}
"""Matplotlib's, and the character that is like each."""
DPI = 160
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "svg.hashsalt": "gentrain",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # names are shown, not set: a class may be called $x$
    "legend.frameon": False,
}
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Style:
    """How one process looks in every figure."""

    series: str
    name: str
    color: str
    marker: str

    @property
    def sign(self) -> str:
        """Its marker as a character."""
        return MARKERS[self.marker]

    def handle(self) -> Line2D:
        """Return what stands for it in a legend."""
        return Line2D([], [], color=self.color, marker=self.marker, label=self.name, markersize=5)


class Pen:
    """An Axes to draw on, which remembers whose what is drawn is, and what its points say when asked."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.marks: dict[str, tuple[str, tuple[str, ...]]] = {}
        """By the drawn thing's id: the series, and a text a marker."""

    def mark(self, artist: object, style: Style, texts: Sequence[str] = ()) -> None:
        """Remember that `artist` is a series's, and what its markers say, in order."""
        name = f"mark{len(self.marks)}"
        artist.set_gid(name)  # type: ignore[attr-defined]
        self.marks[name] = (style.series, tuple(texts))


@dataclass(frozen=True)
class Panel:
    """One coordinate system of a plot."""

    title: str
    draw: Callable[[Pen], None]


@dataclass(frozen=True)
class Plot:
    """One figure of the report, of any number of panels."""

    id: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[Style, ...] = ()
    size: tuple[float, float] = (4.4, 3.2)
    """Of a panel, in inches."""
    columns: int = 4
    """At most, in a file."""


def draw_file(plot: Plot, kind: str) -> bytes:
    """Return the whole plot, all panels and the legend, as the bytes of a `png` or `svg` file on white paper."""
    rows = math.ceil(len(plot.panels) / plot.columns)
    columns = math.ceil(len(plot.panels) / rows)
    with mpl.rc_context(STYLE):
        figure = Figure((columns * plot.size[0], rows * plot.size[1] + 0.4), layout="constrained", facecolor="white")
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for spare in list(axes)[len(plot.panels) :]:
            spare.set_axis_off()
        for panel, place in zip(plot.panels, figure.axes, strict=False):
            panel.draw(Pen(place))
            place.set_title(panel.title)
        if plot.legend:
            handles = [style.handle() for style in plot.legend]
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3 * columns))
        return _saved(figure, kind, transparent=False)


def draw_inline(panel: Panel, *, size: tuple[float, float], prefix: str, alt: str) -> str:
    """Return one panel as an SVG element for a page.

    Its colours are the page's (`currentColor`, `--faint`, `--p0` …), its ids begin with `prefix`; what belongs to a
    series carries `data-series`, and every marker a title that a pointer, a finger or a keyboard finds.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(size, layout="constrained")
        pen = Pen(figure.subplots())
        panel.draw(pen)
        svg = _saved(figure, "svg", transparent=True).decode()
    for index, color in enumerate(SERIES):
        svg = svg.replace(color, f"var(--s{index})")
    svg = svg.replace(INK, "currentColor").replace(FAINT, "var(--faint)")
    root = ET.fromstring(svg[svg.index("<svg") :])
    _keep_what_shows(root)
    for element in root.iter():
        if found := pen.marks.get(element.get("id", "")):
            _tell(element, *found)
    _rename(root, prefix)
    root.set("role", "img")
    root.set("aria-label", alt)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    return ET.tostring(root, encoding="unicode")


def _saved(figure: Figure, kind: str, *, transparent: bool) -> bytes:
    sink = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(sink, format=kind, dpi=DPI, transparent=transparent, metadata=metadata)
    return sink.getvalue()


def _keep_what_shows(root: ET.Element) -> None:
    for element in list(root):
        if element.tag == f"{{{SVG}}}metadata":
            root.remove(element)


def _tell(element: ET.Element, series: str, texts: tuple[str, ...]) -> None:
    element.set("data-series", series)
    markers = list(element.iter(f"{{{SVG}}}use"))
    for marker, text in zip(markers, texts, strict=False):
        marker.set("class", "point")
        marker.set("tabindex", "0")
        ET.SubElement(marker, f"{{{SVG}}}title").text = text


def _rename(root: ET.Element, prefix: str) -> None:
    """Give ids the prefix, and drop those that nothing refers to, so that many SVGs can stand in one page."""
    text = ET.tostring(root, encoding="unicode")
    used = set(re.findall(r"""(?:href="#|url\(#)([^")]+)""", text))
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"{prefix}-{name}")
        for key, value in element.attrib.items():
            if key.endswith("href") and value.startswith("#"):
                element.set(key, f"#{prefix}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}-"))
