"""A private Ray instance: what it needs is checked before it starts, its token is its user's, its servers are local."""

import os
import subprocess
import sys

import psutil
import pytest

from gentrain.cluster._compat import PREEMPTION_WATCHER, REACHABLE
from gentrain.cluster.private import TOKEN, TOKEN_PATH, check_sockets, loopback_only, provide_token
from gentrain.cluster.session import probe, ray_session
from gentrain.errors import ResourceError


def test_a_folder_too_long_for_sockets_is_refused_before_anything_starts(tmp_path):
    longest = f"/tmp/{'x' * 200}"[: 107 - len("/ray/session_2026-11-25_13-21-11_735876_4194304/sockets/plasma_store")]
    with pytest.raises(ResourceError, match=r"no folder that can be written"):
        check_sockets({"TMPDIR": longest})  # it would fit
    with pytest.raises(ResourceError, match=rf"^TMPDIR: {longest}x: {len(longest) + 1} bytes; .*set RAY_TMPDIR"):
        check_sockets({"TMPDIR": longest + "x"})
    with pytest.raises(ResourceError, match=r"^RAY_TMPDIR: /nowhere: no folder that can be written"):
        check_sockets({"TMPDIR": "/tmp", "RAY_TMPDIR": "/nowhere"})
    check_sockets({"TMPDIR": "x" * 500, "RAY_TMPDIR": "/tmp"})
    check_sockets({})


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in (TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    os.environ.pop(TOKEN_PATH, None)


def test_the_token_is_in_the_home_folder_for_its_user_alone(home, tmp_path):
    provide_token(tmp_path / "else")
    token = home / ".ray" / "auth_token"
    first = token.read_text()
    assert (len(first), token.stat().st_mode & 0o777) == (64, 0o600)
    token.chmod(0o644)  # as Ray writes it
    provide_token(tmp_path / "else")
    assert (token.read_text(), token.stat().st_mode & 0o777) == (first, 0o600)
    assert TOKEN_PATH not in os.environ
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]
    assert not (tmp_path / "else").exists()


@pytest.mark.parametrize("home_folder", ["/proc", "/dev/null/home"])
def test_without_a_home_folder_the_token_lies_where_it_can_be_written(home, tmp_path, monkeypatch, home_folder):
    monkeypatch.setenv("HOME", home_folder)
    token = tmp_path / "study" / "ray-token"
    provide_token(token)
    assert os.environ[TOKEN_PATH] == str(token)
    assert (len(token.read_text()), token.stat().st_mode & 0o777) == (64, 0o600)
    os.environ.pop(TOKEN_PATH)
    with pytest.raises(ResourceError, match=r"^/proc/token: Ray's token can't be written: .*; set RAY_AUTH_TOKEN$"):
        provide_token(type(token)("/proc/token"))


def test_a_token_of_the_users_stays(home, tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN, "theirs")
    provide_token(tmp_path / "else")
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_set_of_the_network_stays(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    monkeypatch.delenv(REACHABLE, raising=False)
    monkeypatch.delenv(PREEMPTION_WATCHER, raising=False)
    with loopback_only():
        assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ[REACHABLE], os.environ[PREEMPTION_WATCHER]) == (
            "eth0", "0", "0",
        )  # fmt: skip
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth0"
    assert not {REACHABLE, PREEMPTION_WATCHER} & os.environ.keys()


@pytest.mark.ray
def test_all_servers_of_a_private_instance_listen_on_loopback_only(tmp_path, monkeypatch):
    import ray
    from ray._private import ray_constants

    assert ray_constants.ENABLE_RAY_CLUSTER  # imported before: the variable alone would come too late
    with ray_session(address=None, log=tmp_path / "ray.log", cpus=1):

        @ray.remote(num_cpus=1)
        def start_a_worker():
            return ray.util.get_node_ip_address()

        assert ray.get(start_a_worker.remote()) == "127.0.0.1"
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        names = {" ".join(process.cmdline()) for process in family}
        assert all(any(part in name for name in names) for part in ("gcs_server", "raylet", "ray::", "dashboard"))
        listening = [c for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert len(listening) > 5
        assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
    assert ray_constants.ENABLE_RAY_CLUSTER  # the next session may be on a cluster


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("http://10.0.0.1:8265", r"the dashboard's address; .*HOST:PORT.*submit --address http://10.0.0.1:8265 "),
        ("ray://10.0.0.1:10001", r"Ray Client's address; .*--address http://10.0.0.1:10001 "),
        ("s3://bucket", r"a URL; "),
    ],
)  # fmt: skip
def test_a_url_as_address_is_refused_at_once(address, wanted):
    with pytest.raises(ResourceError, match=rf"^--address {address}: {wanted}"):
        probe(address)


def test_modules_needed_before_ray_do_not_import_it():
    code = "import sys, gentrain.cluster.session, gentrain.cluster.private; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
