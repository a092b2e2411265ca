"""The line that says where Ray's dashboard is."""

import sys
from pathlib import Path

from gentrain.cluster.executor import _dashboard
from gentrain.cluster.private import TOKEN_PATH


def test_the_command_that_prints_the_token_is_there_outside_the_environment_too(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_PATH, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"`{Path(sys.executable).with_name('ray')} get-auth-token`" in _dashboard("127.0.0.1:8265")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert "`ray get-auth-token`" in _dashboard("127.0.0.1:8265")
    assert _dashboard("") == "Ray has no dashboard here"
