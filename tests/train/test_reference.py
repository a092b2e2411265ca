"""The engine against an independent reference: weights, statistics, epochs' rows, predictions and scores to 1e-6.

What the reference is, and that it shares nothing with the engine, stands in tests/train/reference.py. One worker takes
the way of every chain (`api.run`), three workers that of Ray's, over gloo in processes of their own.
"""

import io
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import torch.distributed as dist

from gentrain import api
from gentrain.data.prepare.dataset import prepare
from gentrain.data.sources.registry import load_source
from gentrain.store.done import EPOCHS, MODEL, PREDICTIONS
from gentrain.store.predictions import decode_predictions
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_chain
from gentrain.study.loading import load_study
from gentrain.train.generation import train_generation
from gentrain.train.job import Job
from gentrain.train.workers import Workers
from tests.conftest import claim_token
from tests.train import reference
from tests.train.processes import collect
from tests.train.reference import Images, Recipe

TOLERANCE = 1e-6
WORKERS = 3
SEED = 3
COMMON = (
    "name=reference",
    "dataset.source=digits",
    "dataset.classes=['0','1','2','3','5','8','9']",
    "dataset.limit=14",  # 98 images to train and 98 to test: batches of 12, 16, 24 and 32 leave 2
    "network.name=tests.train.reference:build_for_the_engine",
    "precision=fp32",
    "device=cpu",
    "cpus_per_worker=1",
    f"seed={SEED}",
)


def study_of(recipe, *more):
    return load_study(
        overrides=[
            *COMMON,
            f"recipe.epochs={recipe.epochs}",
            f"recipe.batch_size={recipe.batch}",
            f"recipe.learning_rate={recipe.rate}",
            f"recipe.milestones={list(recipe.milestones)}",
            f"recipe.decay={recipe.decay}",
            f"recipe.warmup_epochs={recipe.warmup}",
            f"recipe.momentum={recipe.momentum}",
            f"recipe.nesterov={str(recipe.nesterov).lower()}",
            f"recipe.weight_decay={recipe.weight_decay}",
            f"recipe.padding={recipe.padding}",
            f"recipe.flip={str(recipe.flip).lower()}",
            *([] if recipe.clip is None else [f"recipe.clip_gradients={recipe.clip}"]),
            *more,
        ]
    )


def images_of(study):
    splits = load_source(study.dataset).splits
    return Images(splits["train"].images, splits["train"].labels, splits["test"].images, splits["test"].labels)


def check_same(store, key, network, rows, images, *, evaluated=(1, 2, 3)):
    """Hold a finished generation of the store to the reference's network and rows; `evaluated` are epochs."""
    folder = store.generation(key)
    weights = safetensors.torch.load(folder.read_verified(MODEL))
    wanted = network.state_dict()
    assert weights.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(weights[name], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    epochs = pq.read_table(io.BytesIO(folder.read_verified(EPOCHS))).to_pylist()
    assert [row["epoch"] for row in epochs] == list(range(1, len(rows) + 1))
    for own, row in zip(epochs, rows, strict=True):
        assert (own["test_error"] is None) == (own["epoch"] not in evaluated)
        names = [name for name in row if own[name] is not None]
        wanted = {name: row[name] for name in names}
        assert {name: own[name] for name in names} == pytest.approx(wanted, rel=TOLERANCE, abs=TOLERANCE)
    scores, labels = decode_predictions(folder.read_verified(PREDICTIONS))
    np.testing.assert_array_equal(labels, images.test_labels)
    np.testing.assert_allclose(scores, reference.predict(network, images), rtol=TOLERANCE, atol=TOLERANCE)
    assert folder.done().train_primary == epochs[-1]["primary_score"]


def scored(scores, labels):
    """Return the scores of a row, sample by sample in Python's numbers."""
    hits, nlls, gaps = [], [], [0.0] * 15
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        ranks = sorted(range(len(row)), key=lambda c: -row[c])
        hits.append((label == ranks[0], label in ranks[:5]))
        nlls.append(-math.log(row[label]))
        gaps[min(int(row[ranks[0]] * 15), 14)] += (label == ranks[0]) - row[ranks[0]]
    count = len(hits)
    return {
        "top1_error": 1 - sum(first for first, _ in hits) / count,
        "top5_error": 1 - sum(five for _, five in hits) / count,
        "nll": sum(nlls) / count,
        "ece": sum(map(abs, gaps)) / count,
    }


def check_rows(rows, networks, images):
    """Hold a chain's rows to the reference's scores of its networks and of their running means."""
    members = [reference.predict(network, images) for network in networks]
    for place, row in enumerate(rows):
        wanted = scored(members[place], images.test_labels)
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, abs=TOLERANCE)
        assert row["primary_test"] == pytest.approx(members[place].max(axis=1).mean(), abs=TOLERANCE)
        mean = scored(sum(members[: place + 1]) / (place + 1), images.test_labels)
        wanted = {f"ensemble_{name}": value if place else None for name, value in mean.items()}
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, abs=TOLERANCE)


TOLERANT = Recipe(
    epochs=3, batch=16, rate=0.2, milestones=(1, 2), momentum=0.85, weight_decay=0.003, padding=2, clip=0.3
)
STRICT = Recipe(
    epochs=3, batch=24, rate=0.1, milestones=(2,), decay=0.3, warmup=1, momentum=0.9, weight_decay=1e-4, padding=1,
    nesterov=False, flip=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "settings", "f_a1", "k", "weights", "temperature", "ensemble"),
    [
        (
            TOLERANT,
            ("process.k=3", "process.lambda=[0.6,0.4]", "process.temperature=2", "process.teacher=ensemble"),
            0.7, 3, (0.6, 0.4), 2.0, True,
        ),
        (STRICT, ("process.lambda=0.5", "evaluate_every=2"), 1.0, 2, (0.5, 0.5), 1.0, False),
    ],
    ids=["tolerant", "strict"],
)  # fmt: skip
def test_a_chain_of_one_worker(tmp_path, recipe, settings, f_a1, k, weights, temperature, ensemble):
    study = study_of(recipe, "generations=2", f"process.f_a1={f_a1}", *settings)
    images, store = images_of(study), RunStore(str(tmp_path))
    chain = api.run(study, runs=str(tmp_path), observe=lambda _: None, local=True)
    loss, networks = partial(reference.patriarch_terms, f_a1=f_a1, k=k), []
    for generation, row in enumerate(chain):
        teachers = networks if ensemble else networks[-1:]
        network, rows = reference.train(
            images, seed=SEED, generation=generation, recipe=recipe, loss=loss, teachers=teachers
        )
        evaluated = [epoch for epoch in (1, 2, 3) if epoch % study.evaluate_every == 0 or epoch == recipe.epochs]
        check_same(store, row["key"], network, rows, images, evaluated=evaluated)
        networks = [*networks, network]
        if generation < len(weights):
            loss = partial(reference.student_terms, lam=weights[generation], temperature=temperature)
    check_rows(chain, networks, images)


def work(rank, folder, jobs, failures):
    """Train generations as one of the workers."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=WORKERS)
    workers = Workers(rank=rank, world_size=WORKERS, device=torch.device("cpu"), threads=1)
    failure = None
    try:
        for job in jobs:
            train_generation(job, workers, lambda _: None)
    except Exception as error:  # the others wait for this worker no longer than the test does
        failure = f"rank {rank}: {error!r}"
    failures.put(failure)
    dist.destroy_process_group()


def train_together(folder, jobs):
    """Train generations by workers in processes of their own, over gloo."""
    assert collect(work, WORKERS, folder, jobs) == [None] * WORKERS


def test_three_workers_with_a_tail_that_the_last_has_no_image_of(tmp_path):
    recipe = replace(TOLERANT, batch=12, epochs=2, milestones=(1,))
    study = study_of(recipe, "generations=1", "process.temperature=1.5", "process.lambda=0.7", "process.k=4")
    images, store = images_of(study), RunStore(str(tmp_path))
    data = prepare(study.dataset, store.data)
    chain = build_chain(study, data=data.manifest.fingerprint, num_classes=data.num_classes)
    tokens = [claim_token(store.generation(key)) for key in chain.keys]
    jobs = [
        Job(spec=spec, store=store, data=data.folder.name, token=token, evaluate_every=1)
        for spec, token in zip(chain.specs, tokens, strict=True)
    ]
    train_together(tmp_path, jobs)
    arguments = {"seed": SEED, "recipe": recipe, "workers": WORKERS}
    loss = partial(reference.patriarch_terms, f_a1=0.6, k=4)
    patriarch, rows = reference.train(images, generation=0, loss=loss, **arguments)
    check_same(store, chain.keys[0], patriarch, rows, images)
    loss = partial(reference.student_terms, lam=0.7, temperature=1.5)
    student, rows = reference.train(images, generation=1, loss=loss, teachers=[patriarch], **arguments)
    check_same(store, chain.keys[1], student, rows, images)


def test_predictions_of_bf16_are_those_of_torch_s_autocast(tmp_path):
    recipe = replace(TOLERANT, epochs=1, milestones=())
    study = study_of(recipe, "generations=0", "precision=bf16")
    (row,) = api.run(study, runs=str(tmp_path), observe=lambda _: None, local=True)
    folder, images = RunStore(str(tmp_path)).generation(row["key"]), images_of(study)
    network = reference.build_for_the_engine(7)
    network.load_state_dict(safetensors.torch.load(folder.read_verified(MODEL)))
    network.to(memory_format=torch.channels_last).eval()
    pixels = images.pixels(images.test.transpose(0, 3, 1, 2)).float().to(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = network(pixels).softmax(dim=1).numpy()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(pixels)
    scores, _ = decode_predictions(folder.read_verified(PREDICTIONS))
    np.testing.assert_allclose(scores, rounded.float().softmax(dim=1), rtol=TOLERANCE, atol=TOLERANCE)
    assert np.abs(scores - exact).max() > 20 * TOLERANCE
