import pytest

from gentrain.train.schedule import learning_rate


def rate(step, **changes):
    settings = {"steps_per_epoch": 10, "base": 0.1, "milestones": (82, 123), "decay": 0.1} | changes
    return learning_rate(step=step, **settings)


def test_the_papers_steps():
    assert rate(0) == rate(819) == 0.1
    assert rate(820) == rate(1229) == pytest.approx(0.01)
    assert rate(1230) == rate(1639) == pytest.approx(0.001)


def test_warm_up_rises_to_the_full_rate():
    rates = [rate(step, warmup_epochs=2) for step in range(21)]
    assert rates[0] == pytest.approx(0.1 / 20)
    assert rates == sorted(rates)
    assert rates[19] == pytest.approx(0.1)
    assert rates[20] == 0.1
