"""Run a sweep under a real Prometheus, and Grafana where it is installed; ask every panel of the dashboard for data.

`make dashboard-test`. Both servers are on loopback, on free ports, and end with it. Without grafana-server, Prometheus
alone evaluates the panels' queries; the output says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARD = DEPLOY / "gentrain.json"
STUDY = (
    "name=watched", "dataset.source=digits", "network.name=resnet8", "recipe.epochs=6", "precision=fp32", "device=cpu",
    "recipe.milestones=[4]", "generations=2", "grid.seed=[0,1]", "compile=false",
)  # fmt: skip
SECONDS = 420


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the title of each panel with each of its queries, the variables replaced by "All"."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], re.sub(r"\$(study|chain|generation)\b", ".*", target["expr"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


@contextlib.contextmanager
def server(command: list[str], *, ready: str, log: Path, **environment: str) -> Iterator[None]:
    """Run a server until the block's end; wait until `ready` answers."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
    try:
        for _ in range(600):
            with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(ready, timeout=5):
                break
            if process.poll() is not None:
                sys.exit(f"{command[0]} ended at once:\n{log.read_text()}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(30)


def prometheus(folder: Path, port: int, ray: Path) -> contextlib.AbstractContextManager[None]:
    """Run Prometheus with the project's own configuration, scraping every second."""
    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    config["global"]["scrape_interval"] = "1s"
    config["scrape_configs"][0]["file_sd_configs"][0] |= {
        "files": [str(ray / "prom_metrics_service_discovery.json")], "refresh_interval": "1s",
    }  # fmt: skip
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    return server(
        [*command, f"--web.listen-address=127.0.0.1:{port}"],
        ready=f"http://127.0.0.1:{port}/-/ready",
        log=folder / "prometheus.log",
    )


def grafana(folder: Path, port: int, source: int) -> contextlib.AbstractContextManager[None]:
    """Run Grafana with the project's provisioning, open to all on loopback."""
    shutil.copytree(DEPLOY / "provisioning", folder / "provisioning")
    path = folder / "provisioning" / "datasources" / "prometheus.yaml"
    path.write_text(path.read_text().replace(":9090", f":{source}"))
    home = os.environ.get("GRAFANA_HOME", "/usr/share/grafana")
    return server(
        ["grafana-server", "-homepath", home],
        ready=f"http://127.0.0.1:{port}/api/health",
        log=folder / "grafana.log",
        GF_SERVER_HTTP_ADDR="127.0.0.1",
        GF_SERVER_HTTP_PORT=str(port),
        GF_PATHS_DATA=str(folder / "grafana"),
        GF_PATHS_PROVISIONING=str(folder / "provisioning"),
        GF_AUTH_ANONYMOUS_ENABLED="true",
        GF_AUTH_ANONYMOUS_ORG_ROLE="Admin",
        GENTRAIN_DASHBOARDS=str(DEPLOY),
    )


def main() -> None:
    if shutil.which("prometheus") is None:
        sys.exit("prometheus isn't installed: apt-get install prometheus")
    dashboard = json.loads(DASHBOARD.read_text())
    wanted = list(queries(dashboard))
    series: dict[tuple[str, str], int] = dict.fromkeys(wanted, 0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gt-", ignore_cleanup_errors=True)))
        ports = free_port(), free_port()
        stack.enter_context(prometheus(folder, ports[0], folder / "ray"))
        if with_grafana := shutil.which("grafana-server") is not None:
            stack.enter_context(grafana(folder, ports[1], ports[0]))
        settings = [part for setting in STUDY for part in ("--set", setting)]
        command = [sys.executable, "-m", "gentrain", "sweep", "--runs", str(folder / "runs"), *settings]
        sweep = subprocess.Popen(command, env=os.environ | {"RAY_TMPDIR": str(folder)})
        try:
            end = time.monotonic() + SECONDS
            while sweep.poll() is None and not all(series.values()) and time.monotonic() < end:
                for title, expression in wanted:
                    found = ask(
                        f"http://127.0.0.1:{ports[0]}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
                    )
                    series[title, expression] = max(series[title, expression], len(found["data"]["result"]))
                time.sleep(1)
            if with_grafana:
                loaded = ask(f"http://127.0.0.1:{ports[1]}/api/dashboards/uid/{dashboard['uid']}")["dashboard"]
                assert [panel["title"] for panel in loaded["panels"]] == [
                    panel["title"] for panel in dashboard["panels"]
                ]
        finally:
            sweep.terminate()
            sweep.wait(120)
    for (title, expression), count in series.items():
        sys.stdout.write(f"{count:4} series  {title}: {expression}\n")
    sys.stdout.write(
        "Grafana loaded the dashboard\n"
        if with_grafana
        else "grafana-server isn't installed: the dashboard was NOT loaded\n"
    )
    if empty := [title for (title, _), count in series.items() if not count]:
        sys.exit(f"no data for: {', '.join(empty)}")


if __name__ == "__main__":
    main()
