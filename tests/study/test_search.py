"""Test the section `search`: what it refuses, and random draws, which go on as if they had never been interrupted."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain.errors import ConfigError
from gentrain.study.loading import load_study, parse_study
from gentrain.study.search import process_with, random_proposals, values_of

SPACE = {"lambda": {"from": 0.3, "to": 0.9}, "f_a1": [0.6, 0.8, 1.0], "temperature": {"from": 1, "to": 8, "log": True}}


def searching(space=SPACE, **settings):
    mapping = {"dataset": {"validation": 0.1}, "search": {"budget": 9, "space": space, **settings}}
    return parse_study(mapping, where="test")


def proposals(study, known=(), count=20):
    return list(itertools.islice(random_proposals(study.process, study.search, known), count))


def test_draws_lie_in_the_space_and_vary_all_of_it():
    study = searching()
    drawn = [values_of(process, study.search) for process in proposals(study, count=60)]
    assert all(0.3 <= each["lambda"] <= 0.9 and 1 <= each["temperature"] <= 8 for each in drawn)
    assert {each["f_a1"] for each in drawn} == {0.6, 0.8, 1.0}
    assert min(each["lambda"] for each in drawn) < 0.4 < 0.8 < max(each["lambda"] for each in drawn)
    assert 0.3 < sum(each["temperature"] < 8**0.5 for each in drawn) / 60 < 0.7  # half, where factors count
    assert all(float(f"{each['lambda']:.3g}") == each["lambda"] for each in drawn)


@given(st.integers(0, 2**31 - 1), st.integers(0, 12))
def test_draws_go_on_equal_after_any_of_them(seed, made):
    study = searching(seed=seed)
    whole = proposals(study, count=12)
    assert len(set(whole)) == 12
    assert proposals(study, known=whole[:made], count=12 - made) == whole[made:]


def test_other_seeds_draw_others():
    assert proposals(searching(seed=0)) != proposals(searching(seed=1))


def test_a_space_of_few_points_ends():
    study = searching({"lambda": [0.4, 0.6], "f_a1": [0.6, 0.8]})
    drawn = proposals(study)
    assert {(process.lam, process.f_a1) for process in drawn} == {(0.4, 0.6), (0.4, 0.8), (0.6, 0.6), (0.6, 0.8)}
    assert len(drawn) == 4
    assert proposals(study, known=drawn) == []


def test_settings_of_losses_can_be_searched():
    study = load_study(
        overrides=["dataset.validation=0.1", "process.student={name: dkd}", "search.budget=5",
                   "search.space={student.beta: {from: 0.5, to: 8, log: true}, student.standardise: [true, false]}"]
    )  # fmt: skip
    drawn = proposals(study)
    assert {process.student.name for process in drawn} == {"dkd"}
    assert {process.student.standardise for process in drawn} == {True, False}
    assert process_with(study.process, values_of(drawn[0], study.search)) == drawn[0]


def test_a_study_without_a_search_is_written_as_before():
    assert "search" not in parse_study({}, where="test").dump()
    study = searching()
    assert parse_study(study.dump(), where="test") == study
    assert all(point.search is None for point in study.points())
    assert study.several
    assert not parse_study({}, where="test").several


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": {}}, "search: space: must name a setting to vary"),
        ({"space": {"k": [3]}}, "space: k can't be searched; lambda, f_a1, temperature, student.SETTING"),
        ({"space": {"student.name": ["kl"]}}, "space: student.name can't be searched"),
        ({"space": {"lambda": 0.5}}, "search.space.lambda: must be a range {from, to, log} or a list of values"),
        ({"space": {"lambda": []}}, "search.space.lambda: must be a range"),
        ({"space": {"lambda": {"from": 0.5, "to": 0.4}}}, "search.space.lambda: from 0.5 to 0.4: must rise"),
        ({"space": {"lambda": {"from": 0, "to": 0.4, "log": True}}}, "with `log` begin above 0"),
        ({"space": {"lambda": {"from": 0.5, "till": 0.6}}}, "search.space.lambda: to: Field required"),
        ({"space": {"lambda": {"from": 0.5, "to": 1.5}}}, "`search.space`: lambda: 1.5: must be a number from 0 to 1"),
        ({"space": {"f_a1": [0.6, 0.1]}}, "`search.space`: f_a1: 0.1: f_a1 is 0.1; it must lie above 1/K"),
        ({"space": {"student.beta": [1]}}, "`search.space`: student.beta: 1: beta: unknown key"),
        ({"budget": 0, "space": SPACE}, "search.budget: input should be greater than or equal to 1 (got 0)"),
    ],
)
def test_bad_searches_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError) as error:
        parse_study({"dataset": {"validation": 0.1}, "search": {"budget": 9} | settings}, where="test")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": {}}, "`search` needs images held out of the training set; set dataset.validation"),
        ({"grid": {"points": [{"seed": 1}]}}, "`search` and `grid.points` don't go together"),
        ({"pretrained": [{"checkpoint": "a.pt"}]}, "`search.space`: f_a1 plays no part with `pretrained`"),
    ],
)
def test_what_does_not_go_with_a_search_is_refused(settings, message):
    whole = {"dataset": {"validation": 0.1}, "search": {"budget": 9, "space": SPACE}} | settings
    with pytest.raises(ConfigError, match=message.replace("`", ".")):
        parse_study(whole, where="test")
