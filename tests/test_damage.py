"""No file of a run folder, however damaged, gives a traceback, another result or a lost generation, in any command."""

import pytest

from tests.damage import try_damage
from tests.damaged_store import CASES, FILES, FOLDERS, OF_FILES, Store, quick


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with quick():
        yield Store(tmp_path_factory.mktemp("damage"))


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_a_damage_is_restored_left_out_or_refused_in_one_line(store, kind):
    damages = [damage for own, damage in CASES if own == kind]
    for place, damage in enumerate(damages):
        writers = ("chain",) if place % 2 else ("sweep",)  # both go the same way; `python -m tests.damage` tries both
        for name, outcome in try_damage(store, kind, damage, writers=writers).items():
            assert not outcome.problems, (kind, damage, name)
            if kind in FILES and FILES[kind].startswith("generations/{first}") and name in writers:
                assert outcome.text in ("as before", "restored", "refused (1)")
                assert outcome.text == "restored" or damage in ("a folder", "a link to itself elsewhere", "a pipe")


def test_the_matrix_is_whole():
    assert len(CASES) > 300
    assert {
        "a bit flipped",
        "truncated",
        "empty",
        "deleted",
        "swapped",
        "a folder",
        "a dangling link",
    } <= OF_FILES.keys()
