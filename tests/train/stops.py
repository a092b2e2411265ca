"""Run a study whole, and stopped after every epoch of every generation and gone on with."""

from gentrain import api
from gentrain.events import EpochDone
from gentrain.store.done import MODEL, PREDICTIONS
from gentrain.store.run import RunStore


class Stop(BaseException):
    """Ends a run as Ctrl-C does."""


def finished_files(study, runs, *, names=(MODEL, PREDICTIONS)):
    """Return the files of a finished chain's generations."""
    store = RunStore(str(runs))
    return [
        [store.generation(row["key"]).read_verified(name) for name in names]
        for row in api.run(study, runs=str(runs), local=True)
    ]


def stopped_everywhere(study, folder, *, names=(MODEL, PREDICTIONS)):
    """Return the finished files of a run that was never stopped, and of one that was stopped after every epoch."""
    left = study.recipe.epochs * (study.students + 1)
    while left:
        left -= 1

        def stop(event):
            if isinstance(event, EpochDone):
                raise Stop

        try:
            api.run(study, runs=str(folder / "parts"), local=True, observe=stop)
        except Stop:
            continue
    return tuple(finished_files(study, folder / which, names=names) for which in ("whole", "parts"))
