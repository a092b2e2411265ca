"""Show a running sweep: a grid of chains × generations on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TextIO

from rich.table import Table
from rich.text import Text

from gentrain.events import (
    ChainSaturated,
    Compiling,
    Event,
    GenerationDone,
    GenerationStarted,
    GenerationWaiting,
    InChain,
    Note,
)
from gentrain.running.progress import AT_WORK, SweepState
from gentrain.view.base import LinesView, TableView, widest_fitting
from gentrain.view.chain import compiling_line, done_line, saturated_line, waiting_line
from gentrain.view.tables import STATES, percent

SUMMARY_SECONDS = 30.0
HEADER_LINES = 8


class SweepLines(LinesView):
    """Print a line for every finished generation, and the sweep's progress every `SUMMARY_SECONDS`."""

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        super().__init__(stream, after=after)
        self._sweep = SweepState()
        self._summarised = time.monotonic()

    def _line(self, event: Event) -> str | None:
        self._sweep.update(event)
        if isinstance(event, InChain):
            if text := self._of_chain(event.event):
                return f"{event.chain}: {text}"
            if isinstance(event.event, ChainSaturated):
                return saturated_line(event.event)
            if time.monotonic() - self._summarised > SUMMARY_SECONDS:
                self._summarised = time.monotonic()
                return self._sweep.headline()
        return super()._line(event)

    @staticmethod
    def _of_chain(event: Event) -> str | None:
        """Return the line of an event of one chain, which begins with the chain's name."""
        if isinstance(event, GenerationDone):
            return done_line(event)
        if isinstance(event, Compiling):
            return compiling_line(event)
        if isinstance(event, GenerationStarted) and event.epoch:
            return f"generation {event.generation} resumes after epoch {event.epoch}"
        if isinstance(event, GenerationWaiting) and event.holder:
            return waiting_line(event)
        return None


class SweepTable(TableView):
    """Show a table with a row for each chain; a low terminal shows running chains first, a narrow one no ensembles."""

    def __init__(self, stream: TextIO, *, after: TextIO | None = None) -> None:
        self._sweep = SweepState()
        super().__init__(stream, after=after)

    def _take(self, event: Event) -> None:
        self._sweep.update(event)
        if isinstance(event, InChain) and isinstance(event.event, GenerationWaiting) and event.event.holder:
            event = Note(f"{event.chain}: {waiting_line(event.event)}")
        super()._take(event)

    def _render(self) -> Table | Text:
        if not self._sweep.chains:
            return Text("preparing …", style="dim")
        return widest_fitting(self.console, (self._table(ensembles=both) for both in (True, False)))

    def _table(self, *, ensembles: bool) -> Table:
        sweep = self._sweep
        table = Table(
            title=f"{sweep.name}\n{sweep.headline()}",
            title_justify="left",
            title_style="bold",
            caption_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        table.add_column("chain", no_wrap=True)
        for generation in range(max(len(keys) for keys in sweep.chains.values())):
            width = 15 if ensembles and generation else 6  # of 12.34% (12.34%), so that the layout doesn't change
            table.add_column(f"Gen #{generation}", justify="right", no_wrap=True, min_width=width)
        room = max(4, self.console.height - HEADER_LINES)
        shown = sorted(sweep.chains, key=self._activity)[:room] if len(sweep.chains) > room else list(sweep.chains)
        for chain in shown:
            table.add_row(chain, *self._cells(chain, ensembles=ensembles))
        hidden = len(sweep.chains) - len(shown)
        table.caption = (
            f"test error{' (of the ensemble)' * ensembles}{f'; {hidden} more chains' if hidden else ''}; {sweep.runs}"
        )
        return table

    def _activity(self, chain: str) -> int:
        """Return a chain's place in the order running, waiting, finished."""
        states = {self._sweep.trainings[key].state for key in self._sweep.chains[chain]}
        return 0 if states & set(AT_WORK) else 1 if "waiting" in states else 2

    def _cells(self, chain: str, *, ensembles: bool) -> Iterable[Text]:
        sweep = self._sweep
        for generation, key in enumerate(sweep.chains[chain]):
            training = sweep.trainings[key]
            state = training.state
            if generation > sweep.ended.get(chain, generation):
                state, text = "waiting", "saturated"
            elif state == "done":
                ensemble = sweep.ensembles.get((chain, generation)) if ensembles else None
                text = percent(training.error) + (f" ({percent(ensemble)})" if ensemble is not None else "")
            elif state == "running":
                text = f"{training.epoch}/{training.epochs}"
            elif state in ("starting", "compiling"):
                text = state
            else:
                text = "queued" if sweep.queued.get(chain) == generation else "·"
            yield Text(text, style=STATES[state])
