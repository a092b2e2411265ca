import pytest

from gentrain.train.schedule import learning_rate


def rate(step, **changes):
    settings = {"steps_per_epoch": 10, "base": 0.1, "milestones": (82, 123), "decay": 0.1} | changes
    return learning_rate(step=step, **settings)


def test_the_papers_steps():
    assert rate(0) == rate(819) == 0.1
    assert rate(820) == rate(1229) == pytest.approx(0.01)
    assert rate(1230) == rate(1639) == pytest.approx(0.001)


def test_a_cosine_falls_from_the_full_rate_to_nothing():
    rates = [rate(step, cosine_epochs=8, milestones=()) for step in range(80)]
    assert rates[0] == 0.1
    assert rates[40] == pytest.approx(0.05)
    assert rates[20] == pytest.approx(0.1 * (1 + 0.5**0.5) / 2)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[79] < 1e-4
    assert rates == [rate(step, cosine_epochs=8, milestones=(1, 2)) for step in range(80)]


def test_a_cosine_begins_after_the_warm_up():
    rates = [rate(step, cosine_epochs=6, warmup_epochs=2) for step in range(60)]
    assert rates[:20] == pytest.approx([0.1 * (step + 1) / 20 for step in range(20)])
    assert rates[20] == 0.1
    assert rates[40] == pytest.approx(0.05)


def test_warm_up_rises_to_the_full_rate():
    rates = [rate(step, warmup_epochs=2) for step in range(21)]
    assert rates[0] == pytest.approx(0.1 / 20)
    assert rates == sorted(rates)
    assert rates[19] == pytest.approx(0.1)
    assert rates[20] == 0.1
