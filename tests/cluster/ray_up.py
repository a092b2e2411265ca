"""Run `ray up`, `gentrain sweep` and `ray down` with deploy/local.yaml on two simulated machines.

The machines are Linux namespaces made by `unshare`: a head and a worker, each with separate processes, home, /tmp/ray
and an sshd with a temporary key. The head's sshd listens on 127.0.0.1, the worker's at the other end of a virtual
cable (veth). The outermost namespace stands for the user's computer. `ray stop`, which ends every Ray that it sees,
sees no Ray outside; and when the outermost namespace ends, everything in it ends.

Run by `make cluster-test`; needs root.
"""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LIMIT_SECONDS, WAIT_SECONDS = 1200, 300
HEAD, WORKER = "10.77.0.1", "10.77.0.2"
TOOLS = {"sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "unshare": "util-linux", "ip": "iproute2"}
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
DASHBOARD = 8266
GRID = "grid.process=[{f_a1: 0.6, lambda: 0.5}, {f_a1: 0.6, lambda: 0.6}]"
CHAINS, GENERATIONS, TRAININGS = 2, 4, 3


def main():
    match sys.argv[1:]:
        case ["computer", work]:
            computer(Path(work))
        case ["machine", work, name, address]:
            machine(Path(work), name, address)
        case _:
            sys.exit(outermost())


def say(text):
    sys.stdout.write(f"[{time.monotonic() - STARTED:4.0f} s] {text}\n")
    sys.stdout.flush()


# --- outside: install tools, start and end the namespaces -------------------------------------------------------------


def outermost():
    if os.geteuid() != 0:
        return "cluster-test: namespaces and an sshd need root: run it with sudo"
    install_tools()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` is reached
    work = Path(tempfile.mkdtemp(prefix="gentrain-cluster-", dir="/tmp"))
    cluster = subprocess.Popen([*UNSHARE, "--net", sys.executable, __file__, "computer", str(work)])
    try:
        return cluster.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"cluster-test: not done after {LIMIT_SECONDS} s"
    finally:
        cluster.kill()  # the kernel ends all processes, mounts and cables of the namespaces
        cluster.wait()
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):
            ssh_sockets().rmdir()


def install_tools():
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    os.environ["PATH"] = path
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        sys.exit(f"cluster-test: no apt-get here: install {' '.join(missing)}, then run it again")
    say(f"installing {' '.join(missing)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def ssh_sockets():
    """Return where Ray keeps root's ssh connections: a fixed folder, over which each machine mounts an empty one."""
    return Path(f"/tmp/ray_ssh_{hashlib.sha256(b'root').hexdigest()[:10]}")


# --- machines ---------------------------------------------------------------------------------------------------------


def settle(home):
    """Give this namespace its home and temporary folders."""
    home.mkdir(parents=True)
    users = home.with_suffix(".passwd")
    others = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
    users.write_text("\n".join([f"root:x:0:0:root:{home}:/bin/bash", *others]) + "\n")
    subprocess.run(["mount", "--bind", users, "/etc/passwd"], check=True)
    for folder in (Path("/tmp/ray"), ssh_sockets(), Path("/run")):
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    os.environ["HOME"] = str(home)


def machine(work, name, address):
    """Serve ssh on `address` as the first process of a machine."""
    settle(work / name)
    Path("/run/sshd").mkdir()
    if name == "worker":
        wait_for("the cable", lambda: run("ip", "link", "show", "worker", check=False).returncode == 0)
        network("worker", WORKER)
    config = work / f"{name}.sshd"
    config.write_text(
        f"ListenAddress {address}\nPort 22\nHostKey {work}/host\nAuthorizedKeysFile {work}/key.pub\nPidFile none\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
    )
    with open(work / f"{name}.log", "wb") as log:
        # A clean environment: what a node has must come from its own shell, not from the caller's.
        sshd = subprocess.Popen([shutil.which("sshd"), "-D", "-e", "-f", config], stderr=log, env={"PATH": os.defpath})
    while os.wait()[0] != sshd.pid:  # the first process of a namespace must wait for its orphans
        pass


def network(device, address):
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{address}/24", "dev", device)
    run("ip", "link", "set", device, "up")
    run("ip", "route", "add", "default", "dev", device)  # Ray takes a machine's address from its default route


def computer(work):
    """Run the test as the computer on which `ray up` is called."""
    for name in ("key", "host"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / name)
    machines = [
        subprocess.Popen([*UNSHARE, *more, sys.executable, __file__, "machine", work, name, address])
        for name, address, more in (("head", "127.0.0.1", ()), ("worker", WORKER, ("--net",)))
    ]
    run("ip", "link", "add", "head", "type", "veth", "peer", "name", "worker", "netns", str(child(machines[1].pid)))
    network("head", HEAD)
    settle(work / "computer")
    os.environ |= {"TMPDIR": str(work), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    os.chdir(ROOT)  # the mounted files are named from there
    cluster = write_config(work)
    try:
        check(work, cluster)
    except BaseException as error:
        detail = getattr(error, "output", None) or ""
        sys.stdout.write(f"{detail}\n")
        for log in sorted(work.glob("*.log")):
            lines = [line for line in log.read_text(errors="replace").splitlines() if "logout()" not in line]
            sys.stdout.write("\n".join([f"--- {log.name}", *lines[-30:], ""]))
        with contextlib.suppress(subprocess.CalledProcessError):
            sys.stdout.write(on_head(cluster, "tail -n 60 /tmp/ray/session_latest/logs/monitor*"))
        sys.exit(f"cluster-test: {error}")


def child(pid):
    """Return the first process of the namespace that the `unshare` of this id made."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_for("a machine", lambda: children.read_text().strip())
    return int(children.read_text())


def write_config(work):
    """Write deploy/local.yaml with this test's machines, and this environment in place of a second installation."""
    config = yaml.safe_load((ROOT / "deploy" / "local.yaml").read_text())
    config["provider"] |= {"head_ip": HEAD, "external_head_ip": "127.0.0.1", "worker_ips": [WORKER]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(work / "key")}
    (install,) = (command for command in config["setup_commands"] if "setup.sh" in command)
    config["setup_commands"][config["setup_commands"].index(install)] = (
        f"ln -sfn {BIN.parent} ~/gentrain/.venv && echo 'export PYTHONPATH=$HOME/gentrain' >> ~/.bashrc"
    )
    config["head_start_ray_commands"][-1] += " --object-store-memory=200000000"
    config["worker_start_ray_commands"][-1] += " --object-store-memory=200000000 --num-cpus=2"
    path = work / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


# --- the test ---------------------------------------------------------------------------------------------------------


def check(work, cluster):
    runs = work / "runs"
    sweep = ["gentrain", "sweep", "study.yaml", "--address", "auto", "--runs", str(runs)]
    for setting in (*small(), "name=cluster", GRID):
        sweep += ["--set", setting]

    ray("get-auth-token", "--generate")
    wait_for("the head's sshd", lambda: "listening" in log(work / "head.log"))
    ray("up", "-y", "--no-config-cache", cluster)
    say("ray up: the head is there")
    wait_for("the worker", lambda: "/2.0 CPU" in on_head(cluster, "ray status"), every=2, seconds=WAIT_SECONDS)
    say("the head's autoscaler has brought up the worker")

    tokens = {(work / name / ".ray" / "auth_token") for name in ("computer", "head", "worker")}
    assert len({token.read_text() for token in tokens}) == 1
    assert all(token.stat().st_mode & 0o077 == 0 for token in tokens if token.parts[-3] != "computer")
    refused = on_head(cluster, "RAY_AUTH_TOKEN=wrong ray status || echo REFUSED")
    assert "REFUSED" in refused, refused
    assert answer(f"http://{HEAD}:8265") == "nobody"

    ray("rsync-up", cluster, ROOT / "experiments" / "figure2-digits.yaml", "~/study.yaml")
    on_head(cluster, shlex.join(sweep))
    before = done(runs)
    say(f"gentrain sweep on the head: {len(before)} trainings")
    assert len(before) == TRAININGS
    results = pq.read_table(runs / "studies" / "cluster" / "results.parquet").to_pylist()
    assert len({row["chain"] for row in results}) == CHAINS
    status = run(BIN / "gentrain", "status", "cluster", "--runs", runs, "--json").stdout
    cells = [json.loads(line) for line in status.splitlines()]
    assert [cell["state"] for cell in cells] == ["done"] * GENERATIONS, cells

    with forwarded(cluster):
        url = f"http://127.0.0.1:{DASHBOARD}"
        assert answer(f"{url}/api/jobs/") == 401
        assert answer(f"{url}/api/jobs/", token=next(iter(tokens)).read_text()) == 200
        say("ray dashboard: 401 without the token, 200 with it")
        ray("job", "submit", "--address", url, "--", *sweep)
    assert done(runs) == before
    say("ray job submit of the same sweep: nothing trained")

    ray("down", "-y", cluster)
    wait_for("the end of Ray on both machines", lambda: not rays(), seconds=120)
    say("ray down: no Ray left on either machine")


def small():
    sys.path.insert(0, str(ROOT))
    from tests.conftest import SMALL

    return [setting for setting in SMALL if not setting.startswith("name=")]


def done(runs):
    return {path: path.stat().st_mtime_ns for path in runs.glob("generations/*/DONE.json")}


def rays():
    """Return the names of Ray's daemons on both machines, whose processes are all to be seen from here."""
    names = (path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm"))
    return [name for name in names if name in ("raylet", "gcs_server")]


def answer(url, token=None):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError:
        return "nobody"


@contextlib.contextmanager
def forwarded(cluster):
    command = [BIN / "ray", "dashboard", cluster, "--port", str(DASHBOARD), "--no-config-cache"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, **quiet) as forward:
        try:
            wait_for("the port", lambda: answer(f"http://127.0.0.1:{DASHBOARD}") != "nobody", every=1)
            yield
        finally:
            forward.terminate()


def on_head(cluster, command):
    return ray("exec", "--no-config-cache", cluster, command)


def ray(*arguments):
    return run(BIN / "ray", *arguments).stdout


def run(*command, check=True):
    finished = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if check and finished.returncode:
        raise subprocess.CalledProcessError(finished.returncode, finished.args, finished.stdout)
    return finished


def log(path):
    return path.read_text() if path.exists() else ""


def wait_for(what, condition, *, every=0.1, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(every)


STARTED = time.monotonic()

if __name__ == "__main__":
    main()
