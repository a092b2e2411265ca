"""A small run folder with everything in it, and every kind of damage to its files and folders."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import typer

from gentrain import api, cli
from gentrain.events import EpochDone
from gentrain.study.loading import dump_study, load_study
from gentrain.study.schema import Study

SETTINGS = (
    "dataset.source=digits",
    "dataset.limit=4",
    "dataset.validation=0.25",
    "network.name=resnet8",
    "recipe.epochs=3",
    "recipe.batch_size=16",
    "recipe.milestones=[1]",
    "recipe.padding=1",
    "precision=fp32",
    "generations=1",
    "device=cpu",
    "cpus_per_worker=1",
)
STUDIES = {"one": (), "grid": ("grid.seed=[0, 1]",), "begun": ("seed=2", "generations=0")}
"""Settings of each study; `begun` is interrupted in its last epoch."""
VOLATILE = {"train_seconds"}


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Leave out in the block what has nothing to do with the run folder's files."""
    loaded: dict[str, Study] = {}

    def load_once(path, **options):
        content = path.read_text()
        if content not in loaded:
            loaded[content] = load_study(path, **options)
        return loaded[content]

    with (
        mock.patch("gentrain.report.write.draw_file", return_value=b"figure"),
        mock.patch("gentrain.report.write.render_page", return_value="page"),
        mock.patch("gentrain.running.study.check_networks"),
        mock.patch("os.fsync"),
        mock.patch("typer.main.get_command", functools.cache(typer.main.get_command)),
        mock.patch("gentrain.study.loading.load_study", load_once),
    ):
        yield


class Interrupted(BaseException):
    """Stands for a kill."""


def study_file(folder: Path, name: str) -> Path:
    """Return the study's file beside the run folder."""
    return folder / f"{name}.yaml"


def build(folder: Path) -> Path:
    """Make a run folder with three studies in `folder`, and their study files beside it; return it."""
    runs = folder / "runs"
    for name, more in STUDIES.items():
        study = load_study(overrides=[f"name={name}", *SETTINGS, *more])
        study_file(folder, name).write_text(dump_study(study))

        def observe(event: object, name: str = name) -> None:
            if name == "begun" and isinstance(event, EpochDone) and event.row["epoch"] == 1:
                raise Interrupted

        with contextlib.suppress(Interrupted):
            api.run(study, runs=str(runs), local=True, observe=observe)
    (runs / "studies" / "one" / "ray.log").write_text("Ray's own lines\n")
    assert command("report", folder).status == 0
    return runs


@dataclass
class Ending:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """Its last line on standard error."""
        return (self.err.strip().splitlines() or [""])[-1]


COMMANDS = ("status", "plan", "evaluate", "report", "chain", "sweep")


def command(name: str, folder: Path) -> Ending:
    """Run a command on the run folder in `folder`, in this process."""
    arguments = {
        "status": ["status"],
        "plan": ["plan", str(study_file(folder, "one"))],
        "evaluate": ["evaluate", "one", "--ensemble"],
        "report": ["report", "one", "--format", "csv"],
        "chain": ["chain", str(study_file(folder, "one")), "--local"],
        "sweep": ["sweep", str(study_file(folder, "one")), "--local"],
        "begun": ["chain", str(study_file(folder, "begun")), "--local"],
    }[name]
    as_json = [] if name == "report" else ["--json"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.run([*arguments, *as_json, "--runs", str(folder / "runs")])
        except Exception:
            status = -1
            err.write(traceback.format_exc())
    return Ending(status, out.getvalue(), err.getvalue())


FILES = {
    "manifest.json": "data/digits-*/manifest.json",
    "*.beton": "data/digits-*/train.beton",
    "spec.json": "generations/{first}/spec.json",
    "data.json": "generations/{first}/data.json",
    "DONE.json": "generations/{first}/DONE.json",
    "model.safetensors": "generations/{first}/model.safetensors",
    "epochs.parquet": "generations/{first}/epochs.parquet",
    "predictions.parquet": "generations/{first}/predictions.parquet",
    "validation_predictions.parquet": "generations/{first}/validation_predictions.parquet",
    ".lock of a generation": "generations/{begun}/.lock",
    "train/epoch-*.safetensors": "generations/{begun}/train/epoch-*.safetensors",
    "train/owner": "generations/{begun}/train/owner",
    "study.yaml": "studies/one/study.yaml",
    "chains/*.json": "studies/one/chains/*.json",
    "results.parquet": "studies/one/results.parquet",
    ".lock of a study": "studies/one/.lock",
    "ray.log": "studies/one/ray.log",
    "report/report.html": "studies/one/report/report.html",
    "report/tables.csv": "studies/one/report/tables.csv",
    "report/figures/*.png": "studies/one/report/figures/figure2.png",
    "report/training/*.safetensors": "studies/one/report/training/*.safetensors",
}
OTHERS = {
    "manifest.json": "data/digits-*/train.beton",
    "*.beton": "data/digits-*/test.beton",
    "data.json": "generations/{first}/spec.json",
    "study.yaml": "studies/grid/study.yaml",
    "chains/*.json": "studies/grid/chains/*-s1.json",
    "results.parquet": "studies/grid/results.parquet",
    "train/epoch-*.safetensors": "generations/{begun}/train/owner",
    "train/owner": "studies/one/ray.log",
    "report/report.html": "studies/one/report/tables.csv",
    "report/tables.csv": "studies/one/report/tables.md",
    "report/figures/*.png": "studies/one/report/figures/energy.png",
    "report/training/*.safetensors": "studies/one/report/tables.csv",
}
"""What a file is swapped with; of a generation's files, the next generation's."""
FOLDERS = {
    "the run folder": ".",
    "data/": "data",
    "data/<name>/": "data/digits-*",
    "generations/": "generations",
    "generations/<key>/": "generations/{first}",
    "generations/<key>/train/": "generations/{begun}/train",
    "studies/": "studies",
    "studies/<study>/": "studies/one",
    "studies/<study>/chains/": "studies/one/chains",
    "studies/<study>/report/": "studies/one/report",
}


class Store:
    """A sound run folder, what its commands print, and copies of it.

    Args:
        folder: empty, for the sound one and its copies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "sound"
        self.folder.mkdir()
        runs = build(self.folder)
        chain = json.loads(next((runs / "studies" / "one" / "chains").iterdir()).read_text())
        (begun,) = (path.parent.name for path in runs.glob("generations/*/train"))
        self.keys = {"first": chain["keys"][0], "second": chain["keys"][1], "begun": begun}
        self.endings = {name: command(name, self.folder) for name in COMMANDS}
        assert {ending.status for ending in self.endings.values()} == {0}, self.endings
        self._copies = 0
        self._parent = folder
        # what a chain that was begun ends in
        copy = self.copy()
        self.endings["begun"] = command("begun", copy)

    def copy(self) -> Path:
        """Return a folder with a copy of the run folder and the study files; unchanged files are hard links."""
        self._copies += 1
        target = self._parent / f"copy-{self._copies}"
        shutil.copytree(self.folder, target, copy_function=os.link)
        return target

    def path(self, folder: Path, pattern: str) -> Path:
        """Return the path of a pattern of FILES, OTHERS or FOLDERS in a copy."""
        if pattern == ".":
            return folder / "runs"
        (path,) = (folder / "runs").glob(pattern.format(**self.keys))
        return path

    def other(self, folder: Path, kind: str) -> Path:
        """Return what a file is swapped with."""
        pattern = OTHERS.get(kind) or FILES[kind].replace("{first}", "{second}").replace("{begun}", "{second}").replace(
            "one/.lock", "grid/.lock"
        )
        return self.path(folder, pattern)


def replace(path: Path, content: bytes) -> None:
    """Write a file in another's place; the other's hard links stay as they are."""
    path.unlink()
    path.write_bytes(content)


def _flip(path: Path, _: Path) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    replace(path, bytes(content))


def _truncate(path: Path, _: Path) -> None:
    content = path.read_bytes()
    replace(path, content[: len(content) // 2])


def _swap(path: Path, other: Path) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    replace(path, theirs)
    replace(other, mine)


def _to_folder(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("not empty")


def _to_link(path: Path, _: Path) -> None:
    copy = next(parent for parent in path.parents if parent.name.startswith("copy-"))
    target = copy / f"elsewhere-{path.name}"
    path.rename(target)
    path.symlink_to(target)


def _to_other_link(path: Path, other: Path) -> None:
    path.unlink()
    path.symlink_to(other)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _dangling(path: Path, _: Path) -> None:
    _remove(path)
    path.symlink_to(path.parent / "nowhere")


def _loop(path: Path, _: Path) -> None:
    _remove(path)
    path.symlink_to(path)


def _pipe(path: Path, _: Path) -> None:
    _remove(path)
    os.mkfifo(path)


def _stray_file(path: Path, _: Path) -> None:
    (path / "notes.txt").write_text("mine")
    (path / "empty.json").write_text("")


def _stray_folder(path: Path, _: Path) -> None:
    (path / "mine.json").mkdir()


def _stray_name(path: Path, _: Path) -> None:
    Path(os.fsdecode(bytes(path) + b"/n\xff\xfe.json")).write_text("{}")


def _stray_link(path: Path, _: Path) -> None:
    (path / "lost.json").symlink_to(path / "nowhere")


Damage = Callable[[Path, Path], None]
OF_FILES: dict[str, Damage] = {
    "a bit flipped": _flip,
    "truncated": _truncate,
    "empty": lambda path, _: replace(path, b""),
    "deleted": lambda path, _: path.unlink(),
    "swapped": _swap,
    "not UTF-8": lambda path, _: replace(path, b"\xff\xfe\x00" * 50),
    "a folder": _to_folder,
    "a link to itself elsewhere": _to_link,
    "a link to another": _to_other_link,
    "a dangling link": _dangling,
    "a link in a loop": _loop,
    "a pipe": _pipe,
}
OF_FOLDERS: dict[str, Damage] = {
    "a file": lambda path, _: (_remove(path), path.write_text("mine"))[0],
    "deleted": lambda path, _: _remove(path),
    "a link to itself elsewhere": _to_link,
    "a dangling link": _dangling,
    "a link in a loop": _loop,
    "a stray file in it": _stray_file,
    "a stray folder in it": _stray_folder,
    "a stray name that isn't UTF-8 in it": _stray_name,
    "a stray dangling link in it": _stray_link,
}
CASES = [(kind, damage) for kind in FILES for damage in OF_FILES] + [
    (kind, damage) for kind in FOLDERS for damage in OF_FOLDERS
]


def damaged_copy(store: Store, kind: str, damage: str) -> Path:
    """Return a copy of the run folder with one damage."""
    copy = store.copy()
    if kind in FILES:
        OF_FILES[damage](store.path(copy, FILES[kind]), store.other(copy, kind))
    else:
        OF_FOLDERS[damage](store.path(copy, FOLDERS[kind]), copy)
    return copy
