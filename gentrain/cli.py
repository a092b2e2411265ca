"""Define the command line: each command parses options, loads the study, calls one function and prints the result.

Longer than 350 lines because every command stands here with all its options and nothing else.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from gentrain.errors import ConfigError, GentrainError, printable

if TYPE_CHECKING:
    from gentrain.api import RunFolder
    from gentrain.results.status import StudyStatus
    from gentrain.study.schema import Study

TRAIN, LOOK, KEEP = "Train", "Results", "This machine and the run folder"
"""Panels of the list of commands."""
PROCESS, WHERE, OUTPUT = "Process", "Where and how", "Output"
"""Panels of a command's options, beside its own."""
OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""New objects after which a command that only looks searches for garbage, instead of Python's 700."""

app = typer.Typer(
    help="Knowledge distillation in generations.",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for garbage rarely: among records of 1,000 chains that takes a third of a command's time.

    Nor is it looked for when the process ends: all its memory is freed then.
    """
    before = gc.get_threshold()
    atexit.register(gc.freeze)
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def complete_study(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the studies in a run folder on a disk, for the shell."""
    return _names_in(Path(context.params.get("runs") or "runs") / "studies", incomplete)


def complete_chain(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of a study's chains in a run folder on a disk, for the shell."""
    study = context.params.get("study") or next(iter(context.args), "")  # the latter where --chain has no value yet
    folder = Path(context.params.get("runs") or "runs") / "studies" / study / "chains"
    return [name.removesuffix(".json") for name in _names_in(folder, incomplete) if name.endswith(".json")]


def _names_in(folder: Path, incomplete: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.startswith(incomplete) and name[0] != ".")
    except OSError:
        return []


StudyArgument = Annotated[
    Path | None, typer.Argument(metavar="STUDY.yaml", help="Study file; default: the built-in digits quickstart.")
]
DataOption = Annotated[str | None, typer.Option("--data", metavar="DIR", help="Folder with the images (dataset.path).")]
RunsOption = Annotated[
    str,
    typer.Option("--runs", metavar="DIR", help="Folder for data, generations and results.", rich_help_panel=WHERE),
]
NameArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of a study in the run folder.", autocompletion=complete_study)
]
ChainOption = Annotated[
    str | None,
    typer.Option("--chain", help="Name of the chain, if there are several.", autocompletion=complete_chain),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, for example recipe.epochs=10.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON rows on stdout, all else on stderr.", rich_help_panel=OUTPUT)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only results and errors.", rich_help_panel=OUTPUT)
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", help="Running Ray cluster (auto finds it); default: a private one.", rich_help_panel=WHERE
    ),
]
SmokeOption = Annotated[bool, typer.Option("--smoke", help="Shrink to minutes: apply the study's section smoke.")]
LocalOption = Annotated[
    bool, typer.Option("--local", help="Run in this process, without Ray, for debugging.", rich_help_panel=WHERE)
]
ExtendOption = Annotated[
    bool,
    typer.Option(
        "--extend", help="Add chains, or generations, to an earlier study of the same name.", rich_help_panel=WHERE
    ),
]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Also write to tensorboard, mlflow, wandb or trackio (trackers).",
        rich_help_panel=OUTPUT,
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Start though disk or memory seem too small.", rich_help_panel=WHERE)
]
INTERRUPTED = 130
"""Exit status after Ctrl-C, the same as a shell's."""
QUICKSTART = Path(__file__).parent / "study" / "quickstart.yaml"


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"gentrain {version_of('gentrain')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(rich_help_panel=TRAIN, epilog="Example: gentrain init photos --output photos.yaml")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with a folder of images for each class.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="The study's file; default: DIR's name, here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file where it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at a folder of images and write a study of it.

    DIR has train/CLASS/* and test/CLASS/* (or val), or CLASS/* alone: then a fifth of each class is tested on.
    """
    from dataclasses import asdict

    from gentrain.running.init import write_first_study
    from gentrain.view import print_json, show, survey_lines, survey_table

    first = write_first_study(folder, output=output, force=force)
    if as_json:
        print_json([{"study": str(first.file), **asdict(first.survey)}], sys.stdout)
        return
    show(survey_table(first, folder=str(folder)), *survey_lines(first))


@app.command(rich_help_panel=TRAIN, epilog="Example: gentrain chain study.yaml --data DIR --set recipe.epochs=30")
def chain(
    study: StudyArgument = None,
    f_a1: Annotated[
        float | None, typer.Option("--f-a1", help="Primary score the patriarch aims at.", rich_help_panel=PROCESS)
    ] = None,
    lam: Annotated[
        float | None,
        typer.Option("--lambda", help="Weight of the teacher in the student's loss.", rich_help_panel=PROCESS),
    ] = None,
    generations: Annotated[
        int | None, typer.Option("--generations", help="Number of students.", rich_help_panel=PROCESS)
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Number of data-parallel processes.", rich_help_panel=WHERE)
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="PATH",
            help="Weights file or generation key to use instead of a patriarch.",
            rich_help_panel=PROCESS,
        ),
    ] = None,
    teacher_network: Annotated[
        str | None,
        typer.Option(
            "--teacher-network", metavar="NAME", help="Its network; default: network.name.", rich_help_panel=PROCESS
        ),
    ] = None,
    data: DataOption = None,
    runs: RunsOption = "runs",
    settings: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    extend: ExtendOption = False,
    force: ForceOption = False,
    track: TrackOption = None,
    address: AddressOption = None,
    local: LocalOption = False,
    smoke: SmokeOption = False,
) -> None:
    """Train one chain D(f_a1, λ): a patriarch and its students.

    Prints errors of every generation and of the running ensembles. Run the same command again to resume.
    """
    from gentrain import api
    from gentrain.view import ChainLines, ChainTable, open_view, print_json, results_table

    if teacher_network and not teacher:
        raise ConfigError(f"--teacher-network {teacher_network}: give the teacher's weights with --teacher")
    loaded = _load(
        study or QUICKSTART,
        settings,
        smoke=smoke,
        quiet=quiet,
        pretrained=[{"checkpoint": teacher, "network": teacher_network}] if teacher else None,
        process__f_a1=f_a1,
        process__lambda=lam,
        generations=generations,
        workers=workers,
        dataset__path=data,
        trackers=track,
    )
    if loaded.several:
        what = "grid" if loaded.search is None else "search"
        raise ConfigError(
            f"{loaded.name}: a study with a {what} is more than one chain; use gentrain sweep or no {what}"
        )
    with open_view(ChainLines, ChainTable, as_json=as_json, quiet=quiet) as view:
        on_change: api.OnChange = "extend" if extend else "refuse"
        rows = api.run(loaded, runs=runs, observe=view, address=address, local=local, on_change=on_change, force=force)
    if as_json:
        print_json(rows, sys.stdout)
    else:
        view.console.print(results_table(rows, classes=rows.num_classes))
        view.console.print(f"results: {_results(runs, loaded.name)}")


@app.command(rich_help_panel=TRAIN, epilog="Example: gentrain sweep experiments/figure2-digits.yaml")
def sweep(
    study: StudyArgument = None,
    data: DataOption = None,
    runs: RunsOption = "runs",
    settings: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    extend: ExtendOption = False,
    force: ForceOption = False,
    track: TrackOption = None,
    address: AddressOption = None,
    local: LocalOption = False,
    smoke: SmokeOption = False,
) -> None:
    """Train all chains of a study's grid, each shared generation once.

    Run the same command again to resume; finished generations are reused.
    """
    from gentrain import api
    from gentrain.view import ChainLines, ChainTable, SweepLines, SweepTable, open_view, print_json, show, status_table

    loaded = _load(study or QUICKSTART, settings, smoke=smoke, quiet=quiet, dataset__path=data, trackers=track)
    views = (SweepLines, SweepTable) if loaded.several else (ChainLines, ChainTable)
    with open_view(*views, as_json=as_json, quiet=quiet) as view:
        on_change: api.OnChange = "extend" if extend else "refuse"
        rows = api.run(loaded, runs=runs, observe=view, address=address, local=local, on_change=on_change, force=force)
    if as_json:
        print_json(rows, sys.stdout)
    else:
        show(status_table(api.open_run(runs).status(loaded.name)))
        view.console.print(f"results: {_results(runs, loaded.name)}")


@app.command(rich_help_panel=TRAIN, epilog="Example: gentrain prepare imagefolder --data DIR --size 64")
def prepare(
    study: Annotated[
        Path | None,
        typer.Argument(metavar="STUDY.yaml|SOURCE", help="Study file, or a source, for example imagefolder."),
    ] = None,
    data: DataOption = None,
    runs: RunsOption = "runs",
    size: Annotated[int | None, typer.Option("--size", help="Side of the network's input, in pixels.")] = None,
    max_side: Annotated[int | None, typer.Option("--max-side", help="Longest stored side, in pixels.")] = None,
    quality: Annotated[int | None, typer.Option("--quality", help="JPEG quality of re-encoded images.")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Leave out and list broken images.")] = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    smoke: SmokeOption = False,
) -> None:
    """Compile a study's images into FFCV files, once."""
    from gentrain import api
    from gentrain.study.loading import source_settings
    from gentrain.study.sections import SOURCES
    from gentrain.view import ChainLines, ChainTable, manifest_table, open_view, print_json

    source = str(study) if str(study) in SOURCES else None
    loaded = _load(
        None if source else study or QUICKSTART,
        [*(source_settings(source) if source else ()), *(settings or ())],
        smoke=smoke,
        quiet=quiet,
        dataset__path=data,
        dataset__skip_broken=skip_broken or None,
        dataset__image_size=size,
        dataset__max_side=max_side,
        dataset__quality=quality,
    )
    with open_view(ChainLines, ChainTable, as_json=as_json, quiet=quiet) as view:
        prepared = api.prepare(loaded, runs=runs, observe=view)
    if as_json:
        print_json([{"folder": str(prepared.folder), **prepared.manifest.model_dump(mode="json")}], sys.stdout)
    else:
        view.console.print(manifest_table(prepared.manifest, folder=str(prepared.folder)))


@app.command(
    rich_help_panel=TRAIN, epilog="Example: gentrain plan experiments/figure2-digits.yaml --gpus 4 --price 2.5"
)
@_rare_collections()
def plan(
    study: StudyArgument = None,
    gpus: Annotated[float, typer.Option("--gpus", help="Number of devices that train at the same time.")] = 1,
    price: Annotated[float | None, typer.Option("--price", help="Price of one device-hour.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time a few steps of each network here.")] = False,
    card: Annotated[
        str | None,
        typer.Option("--card", metavar="NAME", help="GPU, such as A100, by which to estimate what was never timed."),
    ] = None,
    data: DataOption = None,
    runs: RunsOption = "runs",
    settings: SetOption = None,
    as_json: JsonOption = False,
    smoke: SmokeOption = False,
) -> None:
    """Print a study's lineage, time and cost, without starting it."""
    from dataclasses import asdict

    from gentrain import api
    from gentrain.running.cost import chain_costs
    from gentrain.view import chains_table, forest_tree, plan_assumptions, plan_table, print_json, show

    loaded = _load(study or QUICKSTART, settings, smoke=smoke, dataset__path=data)
    cost = api.plan(loaded, runs=runs, gpus=gpus, price=price, measure=measure, card=card)
    if as_json:
        by_chain = [asdict(chain) for chain in chain_costs(cost)]
        print_json([cost.summary() | {"by_chain": by_chain}], sys.stdout)
        return
    tables = [plan_table(cost, name=loaded.name), *([chains_table(cost)] if len(cost.forest.chains) > 1 else [])]
    show(forest_tree(cost, name=loaded.name), *tables, plan_assumptions(cost))
    if loaded.search is not None:
        show(
            f"A search of at most {loaded.search.budget:,} trainings: random proposals stand for those that are still "
            "to be made."
        )


@app.command(rich_help_panel=LOOK, epilog="Example: gentrain status --runs s3://BUCKET/runs")
@_rare_collections()
def status(
    study: Annotated[
        str | None,
        typer.Argument(metavar="STUDY", help="Name of a study; default: all studies.", autocompletion=complete_study),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show learning curves, too, again and again until all is finished.")
    ] = False,
    runs: RunsOption = "runs",
    as_json: JsonOption = False,
) -> None:
    """Print the state of studies, read from the run folder."""
    from dataclasses import asdict

    from gentrain import api
    from gentrain.view import print_json, show, status_table, watch_states

    if watch and as_json:
        raise ConfigError("--watch --json: give one of them")
    folder = api.open_run(runs)
    states, unread = _states(folder, study)
    for line in (*unread, *(note for state in states for note in state.notes)):
        sys.stderr.write(f"gentrain: {line}\n")
    if watch and states:
        watch_states(lambda: [(s, folder.curves(s)) for s in _states(folder, study)[0]], sys.stdout)
    elif as_json:
        rows = [(s.name, name, cell) for s in states for name, chain in s.chains.items() for cell in chain]
        print_json([{"study": s, "chain": chain, **asdict(cell)} for s, chain, cell in rows], sys.stdout)
    else:
        show(*(status_table(s) for s in states), *([] if states or unread else [f"no study in {runs}"]))
    if unread:
        raise typer.Exit(1)


def _states(folder: RunFolder, study: str | None) -> tuple[list[StudyStatus], list[str]]:
    """Return the state of one study or of all; of all, a line for each that can't be read, which hides no other."""
    states, unread = [], []
    for name in [study] if study else folder.studies():
        try:
            states.append(folder.status(name))
        except GentrainError as error:
            if study:
                raise
            unread.append(str(error))
    return states, unread


@app.command(rich_help_panel=LOOK, epilog="Example: gentrain evaluate quickstart --ensemble")
def evaluate(
    study: NameArgument,
    chain: ChainOption = None,
    generation: Annotated[int | None, typer.Option("--generation", help="Default: the last finished one.")] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Evaluate the ensemble up to it.")] = False,
    kind: Annotated[
        Literal["mean", "weighted", "selected"] | None,
        typer.Option("--ensemble-kind", help="Weighted and selected are fitted on the held-out split; default: mean."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Images to use: test, validation or train.")] = "test",
    runs: RunsOption = "runs",
    as_json: JsonOption = False,
) -> None:
    """Print the errors of one generation or ensemble in detail."""
    from gentrain import api
    from gentrain.view import evaluation_tables, print_json, show

    wanted = kind or ("mean" if ensemble else None)
    folder = api.open_run(runs)
    evaluation = folder.evaluate(study, chain=chain, generation=generation, ensemble=wanted, split=split)
    if as_json:
        print_json([evaluation.summary()], sys.stdout)
        return
    show(*evaluation_tables(evaluation))


@app.command(rich_help_panel=LOOK, epilog="Example: gentrain export quickstart --ensemble --to model")
def export(
    study: NameArgument,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Its folder; default: STUDY-model.")] = None,
    chain: ChainOption = None,
    generation: Annotated[int | None, typer.Option("--generation", help="Default: the last finished one.")] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Export the ensemble up to it.")] = False,
    kind: Annotated[
        Literal["mean", "weighted", "selected"] | None,
        typer.Option("--ensemble-kind", help="Weighted and selected are fitted on the held-out split; default: mean."),
    ] = None,
    no_preprocessing: Annotated[
        bool, typer.Option("--no-preprocessing", help="model.pt2 and model.onnx take normalised images.")
    ] = False,
    runs: RunsOption = "runs",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a generation or an ensemble as a model for others.

    Weights, JSON, torch.export and, where it is installed, ONNX.

    The folder needs no run folder: gentrain predict classifies images with it.
    """
    from gentrain import api
    from gentrain.view import print_json, show

    folder = to or Path(f"{study}-model")
    trained, last = api.open_run(runs).chain(study, chain), -1 if generation is None else generation
    wanted = kind or ("mean" if ensemble else None)
    network = trained.ensemble(wanted, generation=last) if wanted else trained.generation(last)
    files = network.export(folder, preprocessing=not no_preprocessing, notify=_notifier(quiet))
    if as_json:
        print_json(
            [{"folder": str(folder), "chain": network.chain, "generation": network.generation, "files": files}],
            sys.stdout,
        )
    else:
        show(f"{network.name}: {folder} ({', '.join(files)})")


@app.command(rich_help_panel=LOOK, epilog="Example: gentrain predict model cat.jpg folder/ --top 3")
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that gentrain export wrote.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes of each image.")] = 5,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a row for each image into FILE.", rich_help_panel=OUTPUT),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Classify images with an exported model.

    Exit status 1 if one can't be decoded.
    """
    from dataclasses import asdict

    from gentrain import api
    from gentrain.view import PredictionsTable, predictions_csv, print_json, show

    if csv is not None and (csv.is_dir() or not csv.absolute().parent.is_dir()):
        raise ConfigError(f"--csv {csv}: {'is a folder' if csv.is_dir() else 'its folder is not there'}; name a file")
    broken, shown = 0, []
    for prediction in api.predict(model, images, top=top):
        if prediction.problem is not None:
            broken += 1
            _notify(f"{prediction.image}: broken image ({prediction.problem})")
        if as_json:
            print_json([asdict(prediction)], sys.stdout)
        shown.append(prediction)
    if csv is not None:
        try:
            csv.write_text(predictions_csv(shown), encoding="utf-8", newline="")
        except OSError as error:
            raise ConfigError(f"--csv {csv}: can't be written ({error.strerror}); name another file") from None
    if not as_json and csv is not None:
        show(f"{len(shown):,} images: {csv}")
    elif not as_json and len(shown) > broken:
        show(PredictionsTable(shown))
    if broken:
        raise typer.Exit(1)


@app.command(rich_help_panel=LOOK, epilog="Example: gentrain push model OWNER/NAME")
def push(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that gentrain export wrote.")],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Its name on the Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a new repository.")] = False,
) -> None:
    """Send an exported model and its card to the Hugging Face Hub.

    A new repository is private. It needs the extra hub, and hf auth login once.
    """
    from gentrain.train.sharing import push as send
    from gentrain.view import show

    show(send(model, name, public=public))


@app.command(rich_help_panel=KEEP, epilog="Example: gentrain networks resnet20 torchvision/resnet18 --classes 10")
def networks(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="More networks to list: torchvision/NAME or package.module:function."),
    ] = None,
    classes: Annotated[int, typer.Option("--classes", min=2, help="Number of classes.")] = 100,
    size: Annotated[
        int | None, typer.Option("--size", min=4, help="Side of the images, in pixels; default: 32, for ResNet-18 224.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List networks with their parameters and multiply-adds."""
    from gentrain.models.cost import describe
    from gentrain.view import networks_table, print_json, show

    rows = describe(names or (), num_classes=classes, size=size)
    if as_json:
        print_json(rows, sys.stdout)
        return
    show(networks_table(rows, classes=classes))


@app.command(rich_help_panel=LOOK, epilog="Example: gentrain report figure2-digits --format markdown")
def report(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY",
            help="Name of a study in the run folder; an archive's only one needs none.",
            autocompletion=complete_study,
        ),
    ] = None,
    form: Annotated[
        Literal["table", "markdown", "csv", "latex"], typer.Option("--format", help="Format of the printed tables.")
    ] = "table",
    no_training_scores: Annotated[
        bool, typer.Option("--no-training-scores", help="Leave out figure 1, for which the training set is predicted.")
    ] = False,
    archive: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DIR", help="Read, and write into, what gentrain archive wrote.", rich_help_panel=WHERE
        ),
    ] = None,
    runs: RunsOption = "runs",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a study's report: HTML page, tables and figures."""
    from gentrain.events import Note
    from gentrain.report.archive import only_study
    from gentrain.report.formats import FORMATS
    from gentrain.report.write import write_report
    from gentrain.store.run import RunStore
    from gentrain.view import ChainLines, ChainTable, open_view, print_json, report_tables, show

    if study is None and archive is None:
        raise ConfigError("STUDY: missing; name a study of the run folder, or give an archive by --from DIR")
    store = RunStore(archive or runs)
    study = study or only_study(store)
    with open_view(ChainLines, ChainTable, as_json=True, quiet=quiet) as view:
        made = write_report(store, study, training=not no_training_scores, place=archive, observe=view)
        if made.report.missing:
            view(Note(f"no result yet: {'; '.join(made.report.missing)}"))
        view(Note(f"report: {made.page}"))
    if as_json:
        print_json([record for table in made.tables for record in table.records()], sys.stdout)
    elif form == "table":
        show(*report_tables(made.tables))
    else:
        sys.stdout.write(FORMATS[form][1](made.tables))


@app.command(rich_help_panel=LOOK, epilog="Example: gentrain archive figure2 --to results/figure2")
def archive(
    study: NameArgument,
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="Folder of the archive, for git or a supplement.")],
    runs: RunsOption = "runs",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy a study's results, without weights and images.

    Predictions, epochs, records, table and report. gentrain report --from DIR draws the report again.
    """
    from gentrain.events import Note
    from gentrain.report.archive import archive_study
    from gentrain.results.units import size
    from gentrain.store.run import RunStore
    from gentrain.view import ChainLines, ChainTable, open_view, print_json, show

    with open_view(ChainLines, ChainTable, as_json=True, quiet=quiet) as view:
        made = archive_study(RunStore(runs), study, to, observe=view)
        if missing := made.report.report.missing:
            view(Note(f"no result yet, so not in it: {'; '.join(missing)}"))
    if as_json:
        print_json(
            [{"folder": to, "generations": made.generations, "bytes": made.bytes, "report": made.report.page}],
            sys.stdout,
        )
    else:
        show(f"{study}: {made.generations:,} generations, {size(made.bytes)}, in {to}; its report: {made.report.page}")


@app.command(rich_help_panel=KEEP, epilog="Example: gentrain doctor study.yaml")
def doctor(
    study: StudyArgument = None,
    data: DataOption = None,
    runs: RunsOption = "runs",
    settings: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check this machine for a study and time what it can do.

    Each precision, and torch.compile.

    Exit status 1 if a check fails; its remedy is printed.
    """
    from gentrain.doctor import examine
    from gentrain.view import doctor_tables, print_json, show

    loaded = _load(study or QUICKSTART, settings, quiet=quiet, dataset__path=data)
    diagnosis = examine(loaded, runs=runs, notify=_notifier(quiet))
    if as_json:
        print_json(diagnosis.rows(), sys.stdout)
    else:
        show(*doctor_tables(diagnosis))
    if not diagnosis.healthy:
        raise typer.Exit(1)


@app.command(rich_help_panel=KEEP, epilog="Example: gentrain clean --older-than 30 --yes")
def clean(
    runs: RunsOption = "runs",
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Only what didn't change for so many days.")
    ] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List what nothing in the run folder needs any more.

    That is generations and prepared data of no study, checkpoints of finished generations, logs of finished studies,
    and what killed writes left.

    --yes removes it. A study whose results you don't want: delete its folder in studies/ first.
    """
    from dataclasses import asdict

    from gentrain.results.units import size
    from gentrain.running.clean import find_unneeded, remove_unneeded
    from gentrain.store.run import RunStore
    from gentrain.view import leftovers_table, print_json, show

    store, notify = RunStore(runs), _notifier(quiet)
    leftovers = find_unneeded(store, older_than=older_than)
    for note in leftovers.notes:
        notify(note)
    if leftovers.young:
        days = f"{older_than:g} day{'' if older_than == 1 else 's'}"
        notify(f"{leftovers.young:,} more changed less than {days} ago (--older-than)")
    if as_json:
        print_json([asdict(item) for item in leftovers.items], sys.stdout)
    elif leftovers.items:
        show(leftovers_table(leftovers, runs=runs, root=str(store.root)))
    if yes and leftovers.items:
        removed = remove_unneeded(store, leftovers.items, notify=_notify)
        (notify if as_json else show)(f"removed: {size(removed)}")
    elif not as_json:
        show("nothing is removed without --yes" if leftovers.items else f"nothing to remove in {runs}")


@app.command(rich_help_panel=KEEP, epilog="Example: gentrain schema --output study.schema.json")
def schema(
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write it there; default: standard output.")
    ] = None,
) -> None:
    """Print the JSON Schema of study files, for editors.

    A study's first line names it: # yaml-language-server: $schema=study.schema.json
    """
    from gentrain.study.json_schema import schema_text

    if output is None:
        sys.stdout.write(schema_text())
        return
    try:
        output.write_text(schema_text(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {printable(str(output))}: can't be written ({error.strerror})") from None


def _load(
    path: Path | None, overrides: list[str] | None, *, smoke: bool = False, quiet: bool = False, **settings: Any
) -> Study:
    """Load a study; lines about settings that are read otherwise than written go to standard error."""
    from gentrain.study.loading import load_study

    return load_study(path, overrides=overrides or (), smoke=smoke, notify=_notifier(quiet), **settings)


def _notifier(quiet: bool) -> Callable[[str], None]:
    """Return what writes a line on standard error, or drops it."""
    return (lambda _: None) if quiet else _notify


def _notify(text: str) -> None:
    sys.stderr.write(f"gentrain: {printable(text)}\n")


def _results(runs: str, study: str) -> str:
    """Return where a study's results lie: under the run folder as it was named, without a URI's options."""
    folder, *_ = runs.partition("?") if "://" in runs else (str(Path(runs)),)
    return f"{folder.rstrip('/')}/studies/{study}"


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process; an error of the user is one line on standard error and exit status 2.

    What is registered for the end runs, but no destructors of C++: with pyarrow 26 loaded, they abort one process in
    fifty after its work is done ("terminate called without an active exception", exit status 134).
    """
    status = run(arguments)
    atexit._run_exitfuncs()  # noqa: SLF001  # what sys.exit would run, and no more
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a closed pipe
            stream.flush()
    os._exit(status)


def _lines(error: GentrainError) -> str:
    """Return an error's message, printable: one line, or one for each mistake of a study."""
    text = str(error)
    return "\n".join(map(printable, text.split("\n"))) if isinstance(error, ConfigError) else printable(text)


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may have no bytes in the terminal's encoding
    try:
        result: Any = typer.main.get_command(app).main(args=arguments, prog_name="gentrain", standalone_mode=False)
    except GentrainError as error:
        sys.stderr.write(f"gentrain: {_lines(error)}\n")
        return error.exit_status
    except typer.TyperException as error:
        sys.stderr.write(f"gentrain: {printable(error.format_message())}; see gentrain --help\n")
        return 2
    status = result if isinstance(result, int) else 0
    if status == INTERRUPTED:
        sys.stderr.write("gentrain: interrupted; run the same command again to resume from the last epoch\n")
    return status
