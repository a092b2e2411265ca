"""Estimates of trainings that were never timed: from timings or a card's figures, never in place of what was timed."""

import io
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gentrain import api
from gentrain.data.prepare.dataset import prepare
from gentrain.data.prepare.expected import Expected, expected_images
from gentrain.errors import ConfigError
from gentrain.models.cost import Cost
from gentrain.models.footprint import network_bytes
from gentrain.running import costs
from gentrain.running.cards import CARDS, card_here, find_card
from gentrain.running.estimate import Guess, Speed, Timing, Work, card_prices, cpu_prices
from gentrain.running.estimator import Estimator
from gentrain.running.plan import make_plan, starting_order, urgencies
from gentrain.store.run import RunStore
from gentrain.study.lineage import build_forest
from gentrain.study.loading import load_study
from gentrain.study.sections import DatasetConfig
from gentrain.view import plan_assumptions, plan_table
from tests.finished import finish

PRICES = (1 / 60e9, 1 / 8e9, 30e-6)
"""Of a machine that is not the first guess's."""
WORKS = [Work(m * 1e6, b * 1e6, n) for m, b, n in
         [(36, 6.7, 1.7), (122, 17, 4.3), (250, 29, 8), (120, 16.8, 4.2), (90, 60, 9), (864, 353, 21)]]  # fmt: skip
works = st.builds(Work, st.floats(1e6, 1e10), st.floats(1e5, 1e9), st.floats(0.1, 100))


def seconds(work, prices=PRICES):
    return sum(price * term for price, term in zip(prices, work.terms, strict=True))


def timed(works, factor=1.0):
    return [Timing(f"net{i}", work, factor * seconds(work), 1 / seconds(work)) for i, work in enumerate(works)]


def speed(timings, precision="fp32"):
    return Speed(cpu_prices(precision), timings, basis="a guess", band=5.0)


@pytest.mark.parametrize("hidden", range(len(WORKS)))
def test_a_linear_machine_is_recovered_from_the_other_networks(hidden):
    others = [work for place, work in enumerate(WORKS) if place != hidden]
    guess = speed(timed(others)).estimate(WORKS[hidden])
    assert guess.seconds == pytest.approx(seconds(WORKS[hidden]), rel=0.12)
    assert guess.low < seconds(WORKS[hidden]) < guess.high


def test_one_timing_scales_the_first_guess():
    work, first = WORKS[1], cpu_prices("fp32")
    slow = [Timing("resnet20", work, 3 * seconds(work, first), 820.0)]
    for other in WORKS:
        guess = speed(slow).estimate(other)
        assert guess.seconds == pytest.approx(3 * seconds(other, first), rel=1e-6)
        assert guess.basis == "resnet20's 820 images/s, by multiply-adds and bytes"
    assert speed(slow).estimate(work).high < speed(slow).estimate(WORKS[-1]).high  # the farther, the wider


def test_the_basis_names_the_two_nearest_networks_once_each():
    named = [Timing(name, work, seconds(work), 100.0) for name, work in zip("aabcd", WORKS, strict=False)]
    assert (
        speed(named).estimate(WORKS[0]).basis
        == "a's 100 and c's 100 images/s and 2 more networks, by multiply-adds and bytes"
    )


@settings(max_examples=40)
@given(st.lists(st.tuples(works, st.floats(1e-6, 10)), max_size=4), works, st.sampled_from([0, 1, 2]))
def test_more_work_takes_longer_and_bands_contain_the_estimate(timings, work, term):
    machine = speed([Timing("net", w, s, 1 / s) for w, s in timings])
    more = Work(*(value * (2 if place == term else 1) for place, value in enumerate(work.terms)))
    less, guess = machine.estimate(work), machine.estimate(more)
    assert 0 < less.seconds <= guess.seconds * (1 + 1e-9)
    assert less.low < less.seconds < less.high


def test_cards_are_found_by_their_usual_names_and_faster_ones_are_faster():
    names = {"a100": "A100", "NVIDIA A100-SXM4-40GB": "A100", "rtx3090": "RTX 3090", "GeForce RTX 4090": "RTX 4090",
             "Tesla T4": "T4", "NVIDIA H100 80GB HBM3": "H100", "l4": "L4", "Tesla V100-SXM2-16GB": "V100"}  # fmt: skip
    assert {name: find_card(name).name for name in names} == names
    assert {card.name for card in CARDS} == set(names.values())
    with pytest.raises(ConfigError, match=r"--card 'L40': not known; did you mean L4\? known: V100, T4"):
        find_card("L40")
    for precision in ("bf16", "fp32", "tf32"):
        prices = {card.name: seconds(WORKS[-1], card_prices(card, precision)) for card in CARDS}
        assert prices["H100"] < prices["A100"] < prices["V100"] < prices["T4"]


def test_the_driver_names_the_card_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("gentrain.running.cards._DRIVER", tmp_path)
    assert card_here() is None
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ: 33\n")
    assert card_here() == find_card("A100")


def test_sources_have_the_training_images_that_are_expected(tmp_path):
    for config in (DatasetConfig(source="digits"), DatasetConfig(source="digits", limit=20, validation=0.1)):
        manifest = prepare(config, tmp_path).manifest
        assert expected_images(config, None).trained == pytest.approx(manifest.splits["train"].count, rel=0.02)
        assert expected_images(config, manifest).trained == manifest.splits["train"].count
    assert expected_images(DatasetConfig(source="cifar100", groups=("flowers", "fish")), None).trained == 5_000


def study(*overrides):
    return load_study(overrides=["generations=1", "recipe.epochs=2", "recipe.milestones=[]", "dataset.source=digits",
                                 "cpus_per_worker=1", *overrides])  # fmt: skip


def planned(store, wanted, **more):
    manifest = api.prepare(wanted, runs=store.uri).manifest
    forest = build_forest(wanted, data=manifest.fingerprint, num_classes=10)
    estimator = Estimator(wanted, store=store, manifest=manifest, **more)
    return forest, make_plan(forest, wanted, store=store, devices=1, estimator=estimator)


def test_what_was_timed_wins_and_the_rest_follows_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr("gentrain.running.estimator.card_here", lambda: None)
    store, grid = RunStore(str(tmp_path)), "grid.network=[resnet8, resnet20]"
    forest, before = planned(store, study(grid))
    assert set(before.estimates) == set(forest.specs)
    assert before.unknown == 4
    other, _ = planned(store, study("grid.network=[resnet8]", "seed=7"))
    for spec, took in zip(other.specs.values(), (20.0, 30.0), strict=True):
        finish(store, spec, seconds=took)
    forest, plan = planned(store, study(grid))
    by_network = {(spec.network.name, spec.work): key for key, spec in forest.specs.items()}
    assert plan.seconds[by_network["resnet8", "patriarch"]] == 20.0
    assert {forest.specs[key].network.name for key in plan.estimates} == {"resnet20"}
    guess = plan.estimates[by_network["resnet20", "patriarch"]]
    assert 40 < guess.seconds < 80  # of 3.3 × the multiply-adds, 2.5 × the bytes and calls of resnet8's 20 s
    assert guess.basis.startswith("resnet8's ")
    assert plan.estimates[by_network["resnet20", "student"]].seconds > guess.seconds
    assert all(0 < g.low < g.seconds < g.high for g in plan.estimates.values())


def test_estimates_decide_no_order_and_no_total(tmp_path):
    store = RunStore(str(tmp_path))
    forest, plan = planned(store, study("grid.network=[resnet8, resnet20]"))
    absurd = {key: Guess(10.0**place, 1.0, 1e9, "nothing") for place, key in enumerate(forest.specs)}
    missing = {chain.name: chain.keys for chain in forest.chains}
    for changed in (replace(plan, estimates=absurd), replace(plan, estimates={})):
        assert urgencies(changed) == urgencies(plan)
        assert starting_order(changed, missing) == starting_order(plan, missing)
        assert changed.device_seconds is changed.makespan is changed.cost is None
    assert plan.filled("low").makespan < plan.filled("seconds").makespan < plan.filled("high").makespan


def test_figure_2_on_8_gpus_has_hours_and_money_with_a_band(tmp_path):
    figure2 = load_study(Path(__file__).parents[2] / "experiments" / "figure2.yaml")
    plan = api.plan(figure2, runs=str(tmp_path), gpus=8, price=2.5, card="A100")
    figures = plan.summary()
    low, point, high = (figures[f"estimated_cost{end}"] for end in ("_low", "", "_high"))
    assert low < point < high
    assert point == pytest.approx(figures["estimated_device_seconds"] / 3600 * 2.5)
    assert (figures["unknown"], figures["estimated"], figures["cost"]) == (154, 154, None)
    console = Console(file=io.StringIO(), width=80, highlight=False, soft_wrap=True, markup=False)
    console.print(plan_table(plan, name="figure2"))
    text = console.file.getvalue()
    assert "unknown" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert f"≈ {point:,.2f} ({low:,.2f} – {high:,.2f})" in text
    assert "≈ resnet20, resnet32, resnet44" in plan_assumptions(plan)
    assert "from published figures of A100" in plan_assumptions(plan)


@pytest.mark.parametrize(("name", "efficient"), [("resnet26", False), ("densenet22-k12", True)])
def test_counted_bytes_are_kept(tmp_path, monkeypatch, name, efficient):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path))
    images = Expected(classes=10, height=8, width=8, trained=1, predicted=1, bytes=0)
    true = costs.size_of(name, images, memory_efficient=efficient)
    assert true == network_bytes(name, num_classes=10, height=8, width=8, memory_efficient=efficient)
    monkeypatch.setattr(costs, "network_bytes", lambda *_, **__: None)
    assert costs.size_of(name, images, memory_efficient=efficient) == true
    (file,) = (tmp_path / "costs").iterdir()
    file.write_text("{")
    assert costs.size_of("resnet8", images, memory_efficient=False) is None  # is in the table, counts nothing
    monkeypatch.setattr(costs, "network_bytes", network_bytes)
    assert costs.size_of(name, images, memory_efficient=efficient) == true


def test_counted_networks_are_kept_and_a_damaged_note_is_counted_again(tmp_path, monkeypatch):
    monkeypatch.setenv("GENTRAIN_CACHE", str(tmp_path))
    costs.network_cost.cache_clear()
    true = costs.network_cost("resnet8", 10, 8, 8)
    (file,) = (tmp_path / "costs").iterdir()
    monkeypatch.setattr(costs, "forward_cost", lambda *_, **__: pytest.fail("counted twice"))
    costs.network_cost.cache_clear()
    assert costs.network_cost("resnet8", 10, 8, 8) == true
    for content in ("{", '{"multiply_adds": -1, "bytes": 1, "operations": 1}', "[]"):
        file.write_text(content)
        monkeypatch.setattr(costs, "forward_cost", lambda *_, **__: Cost(**asdict(true)))
        costs.network_cost.cache_clear()
        assert costs.network_cost("resnet8", 10, 8, 8) == true
    costs.network_cost.cache_clear()
