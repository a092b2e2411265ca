"""Ray's executor: one chain in this process with Ray Train's workers, several as trials of Ray Tune."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gentrain.cluster.private import TOKEN_PATH, check_sockets
from gentrain.cluster.session import connected, fit_resources, own_resources, probe, ray_session
from gentrain.events import Event, InChain, Note, Observer
from gentrain.running.executor import Outcome
from gentrain.store.run import RunStore
from gentrain.study.lineage import Chain
from gentrain.study.schema import Study


class RayExecutor:
    """Runs chains on a Ray cluster, or on a private instance on this machine.

    Args:
        address: of a running cluster ("auto" finds the one on this machine); None for the Ray that this process is
            connected to already, which stays up, or else a private instance.
    """

    concurrent = True

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self.here = address is None

    def check(self, study: Study) -> None:
        """Raise ResourceError at once where the study can never run: too few CPUs or GPUs, or no cluster there."""
        if connected(self._address):
            return
        if self._address is None:
            check_sockets()
            fit_resources(study, own_resources())
        else:
            probe(self._address)

    def run(
        self, chains: Sequence[Chain], *, store: RunStore, data: str, urgencies: Mapping[str, float], observe: Observer
    ) -> Outcome:
        """Run the chains in the order given; what Ray prints goes to the study's `ray.log`."""
        study = chains[0].settings
        log = store.log(study.name)
        theirs = connected(self._address)
        doing = f"connecting to Ray at {self._address}" if self._address else "starting Ray"
        doing = "using the Ray that this process is connected to" if theirs else doing
        observe(Note(f"{doing}; what it prints goes to {log}"))
        with ray_session(address=self._address, log=log, name=study.name) as dashboard:
            observe(Note(_dashboard(dashboard, theirs=theirs)))
            from gentrain.cluster.metrics import RunGauges

            gauges = RunGauges(chains, left=urgencies, slots=1 if len(chains) == 1 else None)

            def measured(event: Event) -> None:
                gauges(event)
                observe(event)

            if len(chains) == 1:
                return _run_here(chains[0], store=store, data=data, observe=measured)
            from gentrain.cluster.sweep import run_trials

            return run_trials(chains, store=store, data=data, urgencies=urgencies, observe=measured)


def _run_here(chain: Chain, *, store: RunStore, data: str, observe: Observer) -> Outcome:
    """Run one chain with its logic in this process: it shares its generations with no other."""
    from gentrain.cluster.capacity import capacity, scaled_up
    from gentrain.cluster.metrics import Gauges
    from gentrain.cluster.trainer import RayRunner
    from gentrain.running.chain import attempt_chain

    gauges = Gauges(chain.name, study=chain.settings.name)

    def observe_chain(event: Event) -> None:
        gauges(event)
        observe(InChain(chain.name, event))

    with RayRunner(
        chain.settings,
        store=store,
        data=data,
        chain=chain.name,
        observe=observe_chain,
        resources=capacity(chain.settings, scaled_up()).resources,
    ) as runner:
        error = attempt_chain(chain, store=store, runner=runner, observe=observe_chain)
    return Outcome({chain.name: error} if error else {}, stopped=frozenset(), interrupted=False)


def _dashboard(url: str, *, theirs: bool = False) -> str:
    if not url or theirs:  # it may ask for no token
        return f"Ray's dashboard: http://{url}" if url else "Ray has no dashboard here"
    file = os.environ.get(TOKEN_PATH)
    ray = "ray" if shutil.which("ray") else Path(sys.executable).with_name("ray")  # outside the environment
    token = f"in {file}" if file else f"that `{ray} get-auth-token` prints"
    return f"Ray's dashboard: http://{url} (it asks for the token {token})"
