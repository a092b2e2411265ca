"""Test the whole report of a small real sweep with hostile names: files, page, browser, damaged files, S3."""

import csv
import io
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gentrain import cli
from gentrain.data.prepare.share import prepare_shared
from gentrain.events import GenerationDone
from gentrain.report.gather import gather_study
from gentrain.report.training import training_scores
from gentrain.report.write import write_report
from gentrain.running.chain import run_chain
from gentrain.running.local import LocalRunner
from gentrain.store.done import PREDICTIONS
from gentrain.store.run import RunStore
from gentrain.store.study_record import StudyRecord
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from tests import hostile
from tests.report.browser import Browser
from tests.s3 import s3_server

STUDY = "small.study"
SETTINGS = (
    f"name={STUDY}", "dataset.source=imagefolder", "dataset.image_size=8", f"network.name={hostile.NETWORK!r}",
    "recipe.epochs=1", "recipe.batch_size=16", "recipe.milestones=[]", "recipe.padding=1", "precision=fp32",
    "generations=1", "device=cpu", "cpus_per_worker=1", "process.k=3",
    "grid.process=[{f_a1: 1.0, lambda: 0.0, k: 3}, {f_a1: 1.0, lambda: 0.5, k: 3}, {f_a1: 0.6, lambda: 0.6, k: 3}]",
    "grid.points=[{process: {f_a1: 0.6, lambda: 0.6, k: 3}, seed: 1}]",
)  # fmt: skip


def sweep(runs, *settings, leave_out=()):
    """Train a study's grid as a sweep does, in this process; chains in `leave_out` are only recorded."""
    study = load_study(overrides=[*SETTINGS, *settings], description=hostile.DESCRIPTION)
    store = RunStore(str(runs))
    data = prepare_shared(study.dataset, store)
    points = {build_chain(p, data=data.manifest.fingerprint, num_classes=data.num_classes): p for p in study.points()}
    (record := StudyRecord(study, store=store)).begin(points)

    def observe(event):
        if isinstance(event, GenerationDone):
            record.add([event.row])

    for chain, point in points.items():
        if chain.name not in leave_out:
            runner = LocalRunner(point, store=store, data=data.folder.name, observe=lambda _: None)
            run_chain(chain, store=store, runner=runner, observe=observe)
    return store


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 12)):
        for name in hostile.CLASSES:
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images):
    runs = tmp_path_factory.mktemp("report")
    return sweep(runs, f"dataset.path={images}")


@pytest.fixture(scope="module")
def written(trained):
    return write_report(trained, STUDY), Path(trained.study(STUDY).path) / "report"


@pytest.fixture
def copy(trained, tmp_path):
    """Return a store with the same content, to be damaged."""
    shutil.copytree(trained.root.path, tmp_path / "runs")
    return RunStore(str(tmp_path / "runs"))


def test_the_tables_agree_with_results_parquet(trained, written):
    rows = pq.read_table(Path(trained.study(STUDY).path) / "results.parquet").to_pylist()
    report = written[0].report
    assert report.missing == report.notes == ()
    assert report.finished == len(report.distinct) == 2 + 2 + 2
    compared = 0
    for chain in report.chains:
        for record in chain.generations:
            row = next(r for r in rows if (r["chain"], r["generation"]) == (chain.name, record.generation))
            assert row["key"] == record.key
            assert row["primary_predicted"] == pytest.approx(record.predicted)
            for name, value in record.values.items():
                assert row[name] == pytest.approx(value, abs=1e-12), name
                compared += 1
    assert compared == 4 * 6 + 3 * 10  # four patriarchs' places, three students with ensembles
    folder = written[1]
    records = list(csv.DictReader(io.StringIO((folder / "tables.csv").read_text())))
    wanted = [r for r in rows if r["f_a1"] == 0.6 and r["generation"] == 1]
    cell = next(
        r for r in records
        if (r["table"], r["process"], r["row"], r["column"]) == ("top1-0", "D(0.6,0.6,K3)", "+ ensemble", "Gen #1")
    )  # fmt: skip
    errors = [100 * r["ensemble_top1_error"] for r in wanted]
    assert float(cell["mean"]) == pytest.approx(np.mean(errors))
    assert float(cell["std"]) == pytest.approx(np.std(errors, ddof=1))


def test_every_figure_is_there_as_png_and_svg(written):
    folder = written[1]
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert names == {"figure1-left", "figure1-right", "figure2", "figure2-ensembles", "energy", "ensemble-gain",
                     "reliability", "learning", "confusion"}  # fmt: skip
    for name in names:
        with Image.open(folder / "figures" / f"{name}.png") as image:
            assert image.width > 400
        ET.parse(folder / "figures" / f"{name}.svg")
    labels = " ".join(ET.parse(folder / "figures" / "figure1-right.svg").getroot().itertext())
    assert "$\\frac{1}{0$" in labels  # shown as it is, not set as a formula
    assert "matplotlib.pyplot" not in sys.modules
    assert mpl.rcParams["svg.fonttype"] == mpl.rcParamsDefault["svg.fonttype"]


def training(store, notes):
    return training_scores(
        gather_study(store, STUDY), store, store.study(STUDY) / "report" / "training", observe=notes.append
    )


def test_training_scores_are_computed_once_and_again_when_damaged(copy, written, monkeypatch):
    kept = sorted(Path(copy.study(STUDY).path).glob("report/training/*.safetensors"))
    assert len(kept) == 2  # of one seed, strict and tolerant
    whole, notes = kept[0].read_bytes(), []
    kept[0].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    computed = training(copy, notes)
    assert len(notes) == 1
    assert "predicting the 48 training images for figure 1" in notes[0].text
    assert kept[0].read_bytes() == whole
    monkeypatch.setattr("gentrain.train.inference.predict_batches", None)
    assert [scores.by_rank.tolist() for scores in training(copy, notes)] == [s.by_rank.tolist() for s in computed]
    assert len(notes) == 1
    places = [("D(1.0,·)", 48, 48), ("D(0.6,·,K3)", 48, 48)]
    assert [(scores.origin, scores.samples, scores.second.sum()) for scores in computed] == places
    assert all(scores.by_rank.sum() == pytest.approx(1) for scores in computed)


class Page(HTMLParser):
    """Collect the tags, ids, links and handlers of a page as a browser would read them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.handlers = Counter(), Counter(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value] += 1
            if name in ("href", "src", "xlink:href", "action"):
                self.links.append((tag, value))
            if name.startswith("on"):
                self.handlers.append((tag, name, value))


def test_nothing_that_a_user_can_name_becomes_markup(written):
    text = (written[1] / "report.html").read_text()
    page = Page(text)
    assert page.tags["script"] == 2
    assert page.tags["img"] == page.tags["iframe"] == 0
    assert page.handlers == []
    assert not [link for link in page.links if re.match(r"\s*(https?:|//|javascript:)", link[1])]
    outside = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    assert "http://" not in outside
    assert "https://" not in outside
    assert "&lt;script&gt;alert(2)&lt;" in text
    assert "tests.hostile:&lt;img src=x onerror=alert(1)&gt;" in text
    assert "49" not in re.findall(r"%s \{\{.*?\}\}|%s \d+", text)  # a template in a name is not evaluated
    assert "{{ 7*7 }}" in text
    assert [name for name, count in page.ids.items() if count > 1] == []
    assert len(text.encode()) < 5_000_000


def test_the_page_in_a_browser(written, tmp_path):
    page = written[1] / "report.html"
    with Browser(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (390, True)):
            browser.open(page, width=width, dark=dark)
            assert browser.run("document.documentElement.scrollWidth") <= width
            colors = browser.run(
                "[...document.querySelectorAll('body, figure svg text')].map(e => getComputedStyle(e))"
                ".map(s => [s.backgroundColor, s.color, s.fill])"
            )
            assert colors[0][0] == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
            ink = colors[0][1]
            assert all(fill == ink for _, _, fill in colors[1:] if fill not in ("rgb(0, 0, 0)", "rgb(255, 255, 255)"))
        headings = browser.run("[...document.querySelectorAll('h1, h2')].map(e => e.textContent)")
        assert headings[0] == STUDY
        for text in (
            "Results",
            "Errors: top-1 error by generation",
            "Learning curves: error by epoch",
            "Lineage",
            "Reproduce",
        ):
            assert text in headings
        places = "[...document.querySelectorAll('nav a')].map(a => document.querySelector(a.getAttribute('href')))"
        assert browser.run(f"{places}.includes(null)") is False

        faded = "document.querySelectorAll('[data-series].off').length"
        assert browser.run(faded) == 0
        browser.run("document.querySelector('[data-pick=p2]').click()")
        assert browser.run(faded) > 10
        assert browser.run("document.querySelectorAll('[data-series~=p2].off').length") == 0
        browser.run("document.querySelector('[data-pick=p2]').click()")
        assert browser.run(faded) == 0

        key = browser.run("(n => { n.focus(); return n.dataset.key })(document.querySelectorAll('.node')[2])")
        details = browser.run("document.getElementById('chosen').innerText")
        assert key in details
        assert "top-1 error" in details
        browser.run("document.querySelector('#figure2 ~ figure .point').focus()")
        assert re.search(r"Gen #\d: \d+\.\d\d", browser.run("document.getElementById('tip').textContent"))
        browser.print(tmp_path / "report.pdf")
        assert browser.errors == []
        assert {url for url in browser.requests if not url.startswith("data:")} == {page.as_uri()}
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_damaged_and_untrained_generations_are_named_and_have_no_number(copy, written, capsys):
    chain = next(
        c for c in gather_study(copy, STUDY).chains if c.name.startswith("D(0.6,0.6,K3)") and c.study.seed == 1
    )
    folders = [Path(copy.generation(record.key).path) for record in chain.generations]
    whole = (folders[0] / PREDICTIONS).read_bytes()
    (folders[0] / PREDICTIONS).write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    shutil.rmtree(folders[1])
    note = f"{folders[0]}/{PREDICTIONS}: damaged or missing; run the study again to restore it"
    report = gather_study(copy, STUDY)
    assert report.notes == (note,)
    assert report.missing == (f"{chain.name}: Gen #0 damaged, Gen #1 not trained yet",)
    assert cli.run(["report", STUDY, "--runs", copy.root.path, "--json", "--no-training-scores"]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["table"] for row in rows} == {"overview", "top1-0", "measures-0"}
    assert {(row["n"], row["std"]) for row in rows if row["process"] == "D(0.6,0.6,K3)" and row["n"]} == {(1, None)}
    assert {row["n"] for row in rows if row["process"] == "D(1.0,0.5)" and row["n"]} == {1}
    assert f"warning: {note}" in err
    assert "Gen #0 damaged, Gen #1 not trained yet" in err
    page = Path(copy.study(STUDY).path, "report/report.html").read_text()
    assert "Gen #0 damaged" in page
    assert "Figure 1, left" not in page


def test_an_unstarted_study_has_a_report(tmp_path, images, capsys):
    names = ["D(1.0,0.0)", "D(1.0,0.5)", "D(0.6,0.6,K3)"]
    label = "tests.hostile--img-src-x-onerror-alert-1--"
    every = [f"{name}-{label}-s0" for name in names] + [f"D(0.6,0.6,K3)-{label}-s1"]
    sweep(tmp_path, f"dataset.path={images}", leave_out=every)
    assert cli.run(["report", STUDY, "--runs", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "D(0.6,0.6,K3)" in out
    assert "0.00" not in out
    assert "not trained yet" in err
    assert "not trained yet" in (tmp_path / "studies" / STUDY / "report" / "report.html").read_text()


def test_a_chain_of_an_earlier_process_is_shown_and_one_of_another_recipe_is_not(copy, images):
    """`gentrain chain` twice under one name: results of the same setting stand together, others would mislead."""
    again = ("grid.process=[{f_a1: 1.0, lambda: 0.0, k: 3}]", "grid.points=[]", f"dataset.path={images}")
    sweep(copy.root.path, *again)
    report = gather_study(copy, STUDY)
    names = {(group.name, len(group.chains)) for group in report.groups}
    assert names == {("Baseline D(1.0,0.0)", 1), ("BornAgain D(1.0,0.5)", 1), ("D(0.6,0.6,K3)", 2)}
    assert report.notes == ()
    sweep(copy.root.path, *again, "recipe.epochs=2")
    report = gather_study(copy, STUDY)
    assert [(group.name, len(group.chains)) for group in report.groups] == [("Baseline D(1.0,0.0)", 1)]
    assert len(report.notes) == 3, report.notes
    assert all("left out: it was run with other settings" in note for note in report.notes)


def test_hostile_names_are_shown_in_a_terminal_as_they_are(trained, written, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    chain = next(chain.name for chain in written[0].report.chains if chain.study.seed == 1)
    command = ["evaluate", STUDY, "--chain", chain, "--runs", trained.root.path]
    assert cli.run(command) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in hostile.CLASSES)
    assert cli.run([*command, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["class_errors"]) == set(hostile.CLASSES)
    assert cli.run(["report", STUDY, "--runs", trained.root.path, "--no-training-scores"]) == 0
    assert hostile.NETWORK in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [(["smal.study"], f"did you mean {STUDY}? there: {STUDY}"), ([STUDY, "--format", "pdf"], "'pdf' is not one of")],
)
def test_refusals(trained, capsys, options, message):
    assert cli.run(["report", *options, "--runs", trained.root.path]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_damaged_chain_record_is_left_out_and_named_in_one_line(copy, capsys):
    chain = next(Path(copy.study(STUDY).path, "chains").iterdir())
    chain.write_text(chain.read_text()[:40])
    assert cli.run(["report", STUDY, "--runs", copy.root.path, "--no-training-scores", "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert ["damaged" in line for line in {*err.splitlines()} if str(chain) in line] == [True], err
    assert "D(0.6,0.6" in out


def test_a_report_on_s3(trained, written, tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path))
    with s3_server(monkeypatch) as bucket:
        store = RunStore(bucket("reports"))
        pafs.copy_files(
            trained.root.path, store.root.path,
            source_filesystem=pafs.LocalFileSystem(), destination_filesystem=store.root.filesystem,
        )  # fmt: skip
        (store.study(STUDY) / "report" / "training").delete_all()
        made = write_report(store, STUDY)
        assert made.page == "reports/runs/studies/small.study/report/report.html"
        assert made.tables == written[0].tables
        assert (store.study(STUDY) / "report").read("report.html").startswith(b"<!doctype html>")
        assert (store.study(STUDY) / "report" / "figures").names() == sorted(
            path.name for path in (written[1] / "figures").iterdir()
        )
