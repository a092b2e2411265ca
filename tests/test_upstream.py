import types

import pytest

from gentrain.errors import DependencyError
from gentrain.upstream import Library


def writer():
    return named  # noqa: F821  (never called: only its code is looked at)


def test_a_private_name_that_is_there_is_returned():
    library = Library("numpy", ">=2")
    assert library.private(types, "SimpleNamespace") is types.SimpleNamespace
    library.check_used(writer, "named")


@pytest.mark.parametrize(
    ("look", "name"),
    [(lambda library: library.private(types, "Nothing"), "types.Nothing"),
     (lambda library: library.private(types.SimpleNamespace, "nothing"), "SimpleNamespace.nothing"),
     (lambda library: library.check_used(writer, "named", "renamed"), "writer's renamed")],
)  # fmt: skip
def test_a_private_name_that_is_gone_is_one_error_with_the_versions(look, name):
    with pytest.raises(DependencyError, match=rf"^numpy [\d.]+ has no {name}, which gentrain uses; ") as error:
        look(Library("numpy", ">=2,<3"))
    assert "versions that work: >=2,<3 (pip install 'numpy>=2,<3')" in str(error.value)


def test_a_module_that_is_gone_is_the_same_error_and_a_library_that_is_missing_is_not():
    with (
        pytest.raises(DependencyError, match=r"^numpy [\d.]+ has no numpy\.nothing, "),
        Library("numpy", ">=2").modules(),
    ):
        import numpy.nothing  # noqa: F401
    with pytest.raises(ModuleNotFoundError), Library("no_such_library", ">=1").modules():
        import no_such_library  # noqa: F401
