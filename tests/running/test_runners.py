"""One test case for every runner: the debug runner and Ray Train prove themselves by the same tests."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from gentrain import api
from gentrain.errors import ConfigError, GentrainError, TrainingError
from gentrain.events import ChainSaturated, EpochDone, GenerationDone, GenerationStarted, Note
from gentrain.running.chain import ensure_generation
from gentrain.scores.ensembles import running_ensemble
from gentrain.store.done import DATA, MODEL, PREDICTIONS
from gentrain.store.predictions import decode_predictions
from gentrain.store.run import RunStore
from gentrain.train import epoch as epoch_module

ROW = {
    "chain", "generation", "key", "f_a1", "lambda", "network", "seed", "top1_error", "top5_error", "nll", "ece",
    "ensemble_top1_error", "ensemble_top5_error", "primary_measured", "primary_predicted", "train_seconds",
}  # fmt: skip
EPOCH = {
    "epoch", "seconds", "images", "images_per_second", "learning_rate", "loss", "hard", "soft", "train_error",
    "primary_score", "test_error",
}  # fmt: skip


class RunnerCase:
    """What any runner must do. `launch(study, runs, observe)` is the subclass's."""

    @pytest.fixture(scope="class")
    @classmethod
    def finished(cls, tmp_path_factory):
        """Run the small chain once for the whole class."""
        from gentrain.study.loading import load_study
        from tests.conftest import SMALL

        runs, events = tmp_path_factory.mktemp("runs"), []
        study = load_study(overrides=SMALL)
        rows = cls.launch(study, runs, events.append)
        return study, runs, rows, events

    def test_rows_are_complete_and_stored(self, finished):
        study, runs, rows, _ = finished
        assert [row["generation"] for row in rows] == [0, 1]
        assert set(rows[0]) >= ROW
        assert rows[0]["ensemble_top1_error"] is None
        assert 0 <= rows[1]["ensemble_top1_error"] <= 1
        assert rows[1]["primary_predicted"] == pytest.approx(1 - 0.4 * 0.6)
        stored = pq.read_table(runs / "studies" / study.name / "results.parquet").to_pylist()
        assert stored == [{name: row.get(name) for name in stored[0]} for row in rows]
        json.dumps(list(rows))

    def test_events_tell_the_story(self, finished):
        _, _, rows, events = finished
        started = [e.generation for e in events if isinstance(e, GenerationStarted)]
        epochs = [(e.generation, e.row["epoch"]) for e in events if isinstance(e, EpochDone)]
        assert started == [0, 1]
        assert epochs == [(g, e) for g in (0, 1) for e in (1, 2, 3)]
        assert [e.row["key"] for e in events if isinstance(e, GenerationDone)] == [row["key"] for row in rows]

    def test_the_run_folder_is_as_documented(self, finished):
        study, runs, rows, _ = finished
        for row in rows:
            folder = runs / "generations" / row["key"]
            names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
            assert names == {"spec.json", DATA, MODEL, PREDICTIONS, "epochs.parquet", "DONE.json"}
            epochs = pq.read_table(folder / "epochs.parquet").to_pylist()
            assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
            assert set(epochs[0]) >= EPOCH
            assert [epoch["learning_rate"] for epoch in epochs] == pytest.approx([0.1, 0.1, 0.01])
        chain = json.loads((runs / "studies" / study.name / "chains" / f"{rows[0]['chain']}.json").read_text())
        assert chain["keys"] == [row["key"] for row in rows]

    def test_nothing_in_the_store_is_pickled(self, finished):
        _, runs, _, _ = finished
        suffixes = {path.suffix for path in runs.rglob("*") if path.is_file() and path.name != ".lock"}
        assert suffixes <= {".json", ".yaml", ".parquet", ".safetensors", ".beton", ".log"}

    def test_ensembles_are_means_of_stored_predictions(self, finished):
        _, runs, rows, _ = finished
        store = RunStore(str(runs))
        stored = [decode_predictions(store.generation(row["key"]).read_verified(PREDICTIONS)) for row in rows]
        members, labels = np.stack([probabilities for probabilities, _ in stored]), stored[0][1]
        error = (running_ensemble(members)[-1].argmax(1) != labels).mean()
        assert rows[1]["ensemble_top1_error"] == pytest.approx(error)
        assert rows[0]["top1_error"] == pytest.approx((members[0].argmax(1) != labels).mean())
        assert members.sum(axis=2) == pytest.approx(1, abs=1e-5)

    def test_a_second_run_trains_nothing(self, finished):
        study, runs, rows, _ = finished
        stamps = {path: path.stat().st_mtime_ns for path in runs.glob("generations/*/*")}
        events = []
        assert self.launch(study, runs, events.append) == rows
        assert all(e.reused for e in events if isinstance(e, GenerationDone))
        assert not [e for e in events if isinstance(e, GenerationStarted | EpochDone)]
        assert {path: path.stat().st_mtime_ns for path in runs.glob("generations/*/*")} == stamps

    def test_damaged_predictions_are_made_again_from_the_weights(self, finished):
        study, runs, rows, _ = finished
        path = runs / "generations" / rows[0]["key"] / PREDICTIONS
        sound = path.read_bytes()
        path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        events = []
        self.launch(study, runs, events.append)
        warnings = [e.text for e in events if isinstance(e, Note) and e.level == "warning"]
        assert any(PREDICTIONS in text and "evaluated again" in text for text in warnings)
        assert not [e for e in events if isinstance(e, EpochDone)]
        assert path.read_bytes() == sound


class TestLocalRunner(RunnerCase):
    @staticmethod
    def launch(study, runs, observe):
        return api.run(study, runs=str(runs), observe=observe, local=True, on_change="extend")

    def test_damaged_weights_are_trained_again_to_the_same_bits(self, finished):
        study, runs, rows, _ = finished
        path = runs / "generations" / rows[1]["key"] / MODEL
        sound = path.read_bytes()
        path.write_bytes(sound[: len(sound) // 2])
        events = []
        self.launch(study, runs, events.append)
        assert any("trained again" in e.text for e in events if isinstance(e, Note))
        assert path.read_bytes() == sound

    def test_two_runs_end_in_the_same_bits(self, finished, tmp_path):
        study, runs, rows, _ = finished
        self.launch(study, tmp_path, lambda _: None)
        for row in rows:
            for name in (MODEL, PREDICTIONS):
                one, other = (root / "generations" / row["key"] / name for root in (runs, tmp_path))
                assert one.read_bytes() == other.read_bytes()

    def test_the_student_learns_from_its_teacher(self, small, tmp_path):
        """With λ = 1 the labels play no part: had the teacher been ignored, the loss would not be its KL."""
        rows = self.launch(
            small("process.lambda=1.0", "recipe.epochs=12", "recipe.milestones=[9]"), tmp_path, lambda _: None
        )
        store = RunStore(str(tmp_path))
        teacher, student = (
            decode_predictions(store.generation(row["key"]).read_verified(PREDICTIONS))[0] for row in rows
        )
        agreement = (teacher.argmax(1) == student.argmax(1)).mean()
        assert agreement > 0.5
        epochs = pq.read_table(io.BytesIO(store.generation(rows[1]["key"]).read_verified("epochs.parquet"))).to_pylist()
        for epoch in epochs:
            assert epoch["loss"] == pytest.approx(epoch["soft"], rel=1e-6)
        assert epochs[-1]["soft"] < epochs[0]["soft"]

    def test_the_chains_of_a_study_share_its_results(self, small, tmp_path):
        one = self.launch(small("generations=0"), tmp_path, lambda _: None)
        path = tmp_path / "studies" / "small" / "results.parquet"
        path.write_bytes(b"damaged")
        self.launch(small("generations=0"), tmp_path, lambda _: None)
        other = self.launch(small("generations=0", "seed=1"), tmp_path, lambda _: None)
        self.launch(small("generations=0", "seed=1"), tmp_path, lambda _: None)
        assert [row["key"] for row in pq.read_table(path).to_pylist()] == [one[0]["key"], other[0]["key"]]

    def test_another_teacher_makes_another_student(self, small, tmp_path):
        one = self.launch(small(), tmp_path, lambda _: None)
        other = self.launch(small("process.f_a1=0.8"), tmp_path, lambda _: None)
        models = [(tmp_path / "generations" / rows[1]["key"] / MODEL).read_bytes() for rows in (one, other)]
        assert models[0] != models[1]

    def test_a_teacher_that_is_damaged_between_generations_is_never_used(self, small, tmp_path):
        study = small()
        rows = self.launch(study, tmp_path, lambda _: None)
        store = RunStore(str(tmp_path))
        store.generation(rows[0]["key"]).write(MODEL, b"rubbish")
        store.generation(rows[1]["key"]).delete("DONE.json")
        from gentrain.data.prepare.dataset import prepare
        from gentrain.running.local import LocalRunner
        from gentrain.study.lineage import build_chain

        data = prepare(study.dataset, store.data)
        chain = build_chain(study, data=data.manifest.fingerprint, num_classes=data.num_classes)
        runner = LocalRunner(study, store=store, data=data.folder.name, observe=lambda _: None)
        with pytest.raises(GentrainError, match="missing or damaged"):
            ensure_generation(chain.specs[1], store=store, runner=runner, observe=lambda _: None)

    def test_a_non_finite_loss_stops_and_keeps_the_last_checkpoint(self, small, tmp_path, monkeypatch):
        from gentrain.train.epoch import CHECK_STEPS
        from gentrain.train.tasks.score_difference import ScoreDifference

        study = small("generations=0")
        calls = iter(range(10**6))
        original = ScoreDifference.__call__

        def poisoned(self, logits, images, labels):
            terms = original(self, logits, images, labels)
            return terms._replace(loss=terms.loss * float("nan")) if next(calls) == 9 else terms

        monkeypatch.setattr(ScoreDifference, "__call__", poisoned)
        with pytest.raises(TrainingError, match=r"generation 0 \(\w+\), epoch 2, step 3: the loss is not finite") as e:
            self.launch(study, tmp_path, lambda _: None)
        assert "the checkpoint after epoch 1 stays" in str(e.value)
        assert CHECK_STEPS > 9
        assert [p.name.split(".")[0] for p in tmp_path.glob("generations/*/train/epoch-*")] == ["epoch-00001"]

    def test_a_held_out_split_is_predicted_too(self, small, tmp_path):
        rows = self.launch(small("dataset.validation=0.2", "generations=0"), tmp_path, lambda _: None)
        folder = RunStore(str(tmp_path)).generation(rows[0]["key"])
        probabilities, labels = decode_predictions(folder.read_verified("validation_predictions.parquet"))
        assert probabilities.shape == (40, 10)
        assert np.bincount(labels).tolist() == [4] * 10
        assert folder.inspect().done.validation_scores["top1_error"] == pytest.approx(
            (probabilities.argmax(1) != labels).mean()
        )

    def test_a_smaller_student_learns_from_a_larger_teacher(self, small, tmp_path):
        rows = self.launch(small("network.name=resnet14", "network.students=resnet8"), tmp_path, lambda _: None)
        assert [row["network"] for row in rows] == ["resnet14", "resnet8"]
        sizes = [(tmp_path / "generations" / row["key"] / MODEL).stat().st_size for row in rows]
        assert sizes[1] < 0.6 * sizes[0]

    def test_a_dense_network_trains_in_the_same_bits_with_less_memory(self, small, tmp_path):
        weights = []
        for saving in ("false", "true"):
            study = small("network.name=densenet10-k4", f"network.memory_efficient={saving}", "dataset.limit=4")
            rows = self.launch(study, tmp_path / saving, lambda _: None)
            weights.append([(tmp_path / saving / "generations" / row["key"] / MODEL).read_bytes() for row in rows])
        assert weights[0] == weights[1]

    def test_a_network_that_does_not_fit_the_images_is_refused(self, small, tmp_path):
        with pytest.raises(ConfigError, match=r"'torchvision/squeezenet1_1' can't take images of 8 × 8 pixels"):
            self.launch(small("network.name=torchvision/squeezenet1_1"), tmp_path, lambda _: None)

    def test_a_chain_that_has_saturated_ends_early(self, small, tmp_path, monkeypatch):
        events = []
        study = small("dataset.validation=0.2", "generations=3", "patience=1")
        for module in ("running", "results"):
            monkeypatch.setattr(f"gentrain.{module}.chain.saturated", lambda errors, patience: len(errors) > patience)
        rows = self.launch(study, tmp_path, events.append)
        assert [row["generation"] for row in rows] == [0, 1]
        assert all(row["validation_error"] is not None for row in rows)
        assert [e.generation for e in events if isinstance(e, ChainSaturated)] == [1]
        assert len(list(tmp_path.glob("generations/*/DONE.json"))) == 2


class TestExplodedWeights:
    launch = staticmethod(TestLocalRunner.launch)

    def explode_at(self, monkeypatch, steps, rate):
        """Set the learning rate of these steps, counted from 0, to `rate`."""
        original = epoch_module.learning_rate
        monkeypatch.setattr(
            epoch_module,
            "learning_rate",
            lambda *, step, **of: rate if step in steps else original(step=step, **of),
        )

    def test_weights_that_explode_in_the_very_last_step_are_not_kept(self, small, tmp_path, monkeypatch):
        self.explode_at(monkeypatch, {3 * 7 - 1}, 1e39)
        wanted = (
            r"generation 0 \(\w+\), epoch 3, after its last step: \S+ is not finite; the checkpoint after epoch 2 stays"
        )
        with pytest.raises(TrainingError, match=wanted) as e:
            self.launch(small("generations=0"), tmp_path, lambda _: None)
        assert "Remedies: lower recipe.learning_rate" in str(e.value)
        names = sorted(p.name.split(".")[0] for p in tmp_path.glob("generations/*/train/epoch-*"))
        assert names == ["epoch-00001", "epoch-00002"]
        with pytest.raises(TrainingError, match="the checkpoint after epoch 2 stays"):
            self.launch(small("generations=0"), tmp_path, lambda _: None)

    def test_a_learning_rate_that_explodes_in_the_only_step_names_no_checkpoint(self, small, tmp_path):
        study = small("generations=0", "recipe.epochs=1", "recipe.milestones=[]", "recipe.batch_size=200",
                      "recipe.learning_rate=1e39")  # fmt: skip
        with pytest.raises(TrainingError, match="is not finite; no epoch was finished"):
            self.launch(study, tmp_path, lambda _: None)
        assert not list(tmp_path.glob("generations/*/train/epoch-*"))

    def test_finite_weights_whose_predictions_are_not_end_in_one_line_too(self, small, tmp_path, monkeypatch):
        self.explode_at(monkeypatch, {3 * 7 - 1}, 1e30)
        with pytest.raises(TrainingError, match="after its last step: predictions of the test split are not finite"):
            self.launch(small("generations=0"), tmp_path, lambda _: None)

    def test_a_checkpoint_says_what_it_is_of(self, small, tmp_path, monkeypatch):
        self.explode_at(monkeypatch, {3 * 7 - 1}, 1e39)
        with pytest.raises(TrainingError):
            self.launch(small("generations=0"), tmp_path, lambda _: None)
        newest = max(tmp_path.glob("generations/*/train/epoch-*"))
        with safe_open(newest, "pt") as file:
            recorded = json.loads(file.metadata()["gentrain"])
        assert len(recorded.pop("rows")) == 2
        assert recorded == {"key": newest.parents[1].name, "epoch": 2, "world_size": 1, "precision": "fp32",
                            "compile": False, "device": "cpu"}  # fmt: skip


@pytest.mark.ray
class TestRayRunner(RunnerCase):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def cluster(cls, tmp_path_factory):
        """One private Ray instance for the class, as `gentrain chain` starts one."""
        from gentrain.cluster.session import ray_session

        with ray_session(address=None, log=tmp_path_factory.mktemp("log") / "ray.log", cpus=2):
            yield

    @staticmethod
    def launch(study, runs, observe):
        from gentrain.cluster.trainer import RayRunner
        from gentrain.data.prepare.share import prepare_shared
        from gentrain.running.chain import run_chain
        from gentrain.store.study_record import StudyRecord
        from gentrain.study.lineage import build_chain

        store = RunStore(str(runs))
        data = prepare_shared(study.dataset, store)
        chain = build_chain(study, data=data.manifest.fingerprint, num_classes=data.num_classes)
        record = StudyRecord(study, store=store)
        record.begin([chain])

        def observe_and_record(event):
            if isinstance(event, GenerationDone):
                record.add([event.row])
            observe(event)

        options = {"store": store, "data": data.folder.name, "chain": chain.name}
        with RayRunner(study, observe=observe_and_record, **options) as runner:
            return run_chain(chain, store=store, runner=runner, observe=observe_and_record)

    def test_it_ends_in_the_debug_runners_bits(self, finished, tmp_path):
        study, runs, rows, _ = finished
        api.run(study, runs=str(tmp_path), observe=lambda _: None, local=True)
        for row in rows:
            for name in (MODEL, PREDICTIONS):
                one, other = (Path(root) / "generations" / row["key"] / name for root in (runs, tmp_path))
                assert one.read_bytes() == other.read_bytes()

    def test_more_workers_than_cpus_is_said_at_once(self, small, tmp_path):
        with pytest.raises(GentrainError, match=r"workers: 4 × 1 CPUs are more than the 2 CPUs there are"):
            self.launch(small("workers=4"), tmp_path, lambda _: None)

    def test_a_gpu_that_is_not_there_is_said_at_once(self, small, tmp_path):
        with pytest.raises(GentrainError, match=r"device: cuda: the cluster has no GPU"):
            self.launch(small("device=cuda"), tmp_path, lambda _: None)
        with pytest.raises(GentrainError, match=r"0\.25 GPUs are more than the 0 GPUs there are"):
            self.launch(small("device=auto", "gpus_per_worker=0.25"), tmp_path, lambda _: None)

    def test_a_non_finite_loss_ends_two_workers_together(self, small, tmp_path):
        study = small("workers=2", "recipe.learning_rate=1e30", "generations=0")
        with pytest.raises(TrainingError, match=r"generation 0 \(\w+\), epoch 1, step \d+: the loss is not finite"):
            self.launch(study, tmp_path, lambda _: None)
