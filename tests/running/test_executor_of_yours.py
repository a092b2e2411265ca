"""Test the executor of docs/architecture.md by the case that every executor passes."""

from gentrain.running.local import LocalExecutor
from gentrain.running.study import run_study
from gentrain.store.run import RunStore
from tests.running.test_runners import RunnerCase


class AnnouncingExecutor(LocalExecutor):
    def run(self, chains, **arguments):
        print("to train:", [chain.name for chain in chains])  # noqa: T201
        return super().run(chains, **arguments)


class TestAnExecutorOfYours(RunnerCase):
    @staticmethod
    def launch(study, runs, observe):
        store = RunStore(str(runs))
        return run_study(study, store=store, executor=AnnouncingExecutor(), observe=observe, on_change="keep")

    def test_it_announces_what_it_trains(self, small, tmp_path, capsys):
        study = small("generations=0", "recipe.epochs=1", "recipe.milestones=[]")
        for _ in range(2):  # the second time nothing is left to train
            self.launch(study, tmp_path, lambda _: None)
        assert capsys.readouterr().out.count("to train: ['D(0.6,") == 1
