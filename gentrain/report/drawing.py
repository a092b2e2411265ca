"""Draw a plot as PNG, as SVG, or as SVG in the page's colours. Without pyplot, so that no global state stays."""

from __future__ import annotations

import io
import math
import re
import warnings
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
"""Colours that colour-blind readers can tell apart, with a contrast of at least 3:1 on white; markers differ too."""
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "*": "★"}
"""Matplotlib's markers, each with the character that looks most like it."""
DPI = 160
CHARACTERS, LINE = 14, 0.18
"""Of a legend: characters an inch, inches a line."""
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
    """Hold the look of one process in every figure."""

    series: str
    name: str
    color: str
    marker: str

    @property
    def sign(self) -> str:
        """Return the marker as a character."""
        return MARKERS[self.marker]

    def handle(self) -> Line2D:
        """Return the legend entry."""
        return Line2D([], [], color=self.color, marker=self.marker, label=self.name, markersize=5)


class Pen:
    """Draw on an Axes and remember for each drawn artist its series and the texts of its points."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.marks: dict[str, tuple[str, tuple[str, ...]]] = {}
        """By the artist's id: its series, and one text for each marker."""

    def mark(self, artist: object, style: Style, texts: Sequence[str] = ()) -> None:
        """Assign an artist to a series, and texts to its markers, in order."""
        name = f"mark{len(self.marks)}"
        artist.set_gid(name)  # type: ignore[attr-defined]
        self.marks[name] = (style.series, tuple(texts))


@dataclass(frozen=True)
class Panel:
    """Define one coordinate system of a plot."""

    title: str
    draw: Callable[[Pen], None]


@dataclass(frozen=True)
class Plot:
    """Define one figure of the report, with any number of panels."""

    id: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[Style, ...] = ()
    size: tuple[float, float] = (4.4, 3.2)
    """Width and height of a panel, in inches."""
    columns: int = 4
    """Most panels side by side in a file."""


def draw_file(plot: Plot, kind: str) -> bytes:
    """Return the whole plot, panels and legend, as the bytes of a `png` or `svg` file on white."""
    rows = math.ceil(len(plot.panels) / plot.columns)
    columns = math.ceil(len(plot.panels) / rows)
    width = columns * plot.size[0]
    longest = max((len(style.name) for style in plot.legend), default=0)
    beside = max(1, min(len(plot.legend), 3 * columns, int(width * CHARACTERS / (longest + 6))))
    below = math.ceil(len(plot.legend) / beside)
    height = rows * plot.size[1] + 0.4 + LINE * max(0, below - 2)
    with mpl.rc_context(STYLE):
        figure = Figure((width, height), layout="constrained", facecolor="white")
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for spare in list(axes)[len(plot.panels) :]:
            spare.set_axis_off()
        for panel, place in zip(plot.panels, figure.axes, strict=False):
            panel.draw(Pen(place))
            place.set_title(panel.title)
        if plot.legend:
            handles = [style.handle() for style in plot.legend]
            figure.legend(handles=handles, loc="outside lower center", ncols=beside)
        return _saved(figure, kind, transparent=False)


def draw_inline(panel: Panel, *, size: tuple[float, float], prefix: str, alt: str) -> str:
    """Return one panel as an SVG element for a page.

    Colours are the page's CSS variables (`currentColor`, `--faint`, `--s0` …), ids begin with `prefix`, elements of a
    series carry `data-series`, and every marker has a title that pointer, touch and keyboard can reach.
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
    _drop_metadata(root)
    for element in root.iter():
        if mark := pen.marks.get(element.get("id", "")):
            _label(element, *mark)
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a browser has it; a PNG has a box there
        figure.savefig(sink, format=kind, dpi=DPI, transparent=transparent, metadata=metadata)
    return sink.getvalue()


def _drop_metadata(root: ET.Element) -> None:
    for element in list(root):
        if element.tag == f"{{{SVG}}}metadata":
            root.remove(element)


def _label(element: ET.Element, series: str, texts: tuple[str, ...]) -> None:
    element.set("data-series", series)
    markers = list(element.iter(f"{{{SVG}}}use"))
    for marker, text in zip(markers, texts, strict=False):
        marker.set("class", "point")
        marker.set("tabindex", "0")
        ET.SubElement(marker, f"{{{SVG}}}title").text = text


def _rename(root: ET.Element, prefix: str) -> None:
    """Put the prefix before ids and drop unused ones, so that many SVGs can share one page."""
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
