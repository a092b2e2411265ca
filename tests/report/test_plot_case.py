"""Provide the test case that every figure of the report passes: inherit `PlotCase` and build yours."""

import io
import xml.etree.ElementTree as ET
from functools import partial

from PIL import Image

from gentrain.report.drawing import Panel, Plot, draw_file, draw_inline
from gentrain.report.figures import build_plots
from tests.report.test_report import made, report_of


def small_report():
    tolerant = made("a", {"f_a1": 0.6, "lambda": 0.6}, (0, 1), [0.3, 0.2])
    return report_of(made("b", {"f_a1": 1.0, "lambda": 0.5}, (0, 1), [0.25, 0.22], series="p1"), tolerant)


class PlotCase:
    """Test one figure; a subclass's `build` returns it for a report."""

    def build(self, report):
        raise NotImplementedError

    def test_it_has_a_title_a_caption_and_panels(self):
        plot = self.build(small_report())
        assert ": " in plot.title  # the page's contents show what stands before the colon
        assert plot.caption.endswith(".")
        assert plot.panels
        assert plot.id.replace("-", "").isalnum()

    def test_it_is_drawn_as_png_and_svg(self):
        plot = self.build(small_report())
        with Image.open(io.BytesIO(draw_file(plot, "png"))) as image:
            assert image.width > 400
        ET.fromstring(draw_file(plot, "svg"))

    def test_it_is_drawn_for_the_page(self):
        plot = self.build(small_report())
        svg = draw_inline(plot.panels[0], size=plot.size, prefix=plot.id, alt=plot.title)
        root = ET.fromstring(svg)
        assert all(element.get("id", plot.id).startswith(plot.id) for element in root.iter())
        assert "#1b1f24" not in svg  # ink is the page's colour, light or dark


class TestFigure2(PlotCase):
    def build(self, report):
        return next(plot for plot in build_plots(report, ()) if plot.id == "figure2")


def draw_last(pen, report):
    names = [group.name for group in report.groups]
    pen.axes.bar(names, [100 * group.spread("top1_error", group.last).mean for group in report.groups])


def last_plot(report):
    """Return the figure of docs/architecture.md."""
    panel = Panel("last generation", partial(draw_last, report=report))
    return Plot("last", "Last generation: top-1 error", "Top-1 error %, mean over seeds.", (panel,))


class TestAFigureOfYours(PlotCase):
    def build(self, report):
        return last_plot(report)
