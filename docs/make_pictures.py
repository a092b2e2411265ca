"""Take the pictures of the documentation from real runs: the terminal while a chain trains and after it, plan, report.

make docs-pictures
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable
from pathlib import Path

import pyte
from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
COLUMNS, LINES = 100, 60


def run(command: str, seen: Callable[[list[str]], bool] | None = None) -> tuple[pyte.Screen, pyte.Screen | None]:
    """Run gentrain in a terminal; return the screen at its end, and the last one for which `seen` was true."""
    screen, kept = pyte.Screen(COLUMNS, LINES), None
    stream = pyte.ByteStream(screen)
    child, terminal = pty.fork()
    if not child:
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", COLUMNS=str(COLUMNS), LINES=str(LINES))
        os.execvp(sys.executable, [sys.executable, "-m", "gentrain", *command.split()])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    while True:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:  # the terminal's other end is closed
                break
            stream.feed(data)
        elif seen and seen(screen.display):
            kept = pyte.Screen(COLUMNS, LINES)
            kept.buffer.update({row: dict(cells) for row, cells in screen.buffer.items()})
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"gentrain {command}: status {os.waitstatus_to_exitcode(status)}")
    return screen, kept


def save(screen: pyte.Screen, name: str, command: str) -> None:
    """Write a screen as an SVG that loads no font from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    lines = [_line(screen, row) for row in range(LINES)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    console.print(f"$ gentrain {command}", style="bold", highlight=False)
    for line in lines:
        console.print(line)
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="gentrain"), flags=re.DOTALL)
    (PICTURES / name).write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


def _line(screen: pyte.Screen, row: int) -> Text:
    """Return a row of a screen with its colours."""
    text = Text()
    for column in range(COLUMNS):
        cell = screen.buffer[row].get(column) or screen.default_char
        colour = "" if cell.fg == "default" else f"#{cell.fg}" if re.fullmatch("[0-9a-f]{6}", cell.fg) else cell.fg
        style = [word for word, on in (("bold", cell.bold), ("italic", cell.italics)) if on]
        text.append(cell.data, " ".join([*style, colour.replace("brown", "yellow")]).strip())
    text.rstrip()
    here = f"{Path.cwd()}/"
    start = text.plain.find(here)
    return text if start < 0 else text[:start] + text[start + len(here) :]  # paths relative to where it ran


def main() -> None:
    """Take all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "experiments").symlink_to(ROOT / "experiments")
        os.chdir(folder)
        command = "chain experiments/quickstart.yaml --local"
        end, during = run(command, lambda lines: any(re.search(r"\b1\b.*running", line) for line in lines))
        save(during or end, "chain.svg", command)
        save(end, "result.svg", command)
        command = "plan experiments/figure2-digits.yaml --gpus 4 --price 2.5"
        save(run(command)[0], "plan.svg", command)
        run("sweep experiments/figure2-digits.yaml --local")
        run("report figure2-digits")
        browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
        page = Path("runs/studies/figure2-digits/report/report.html").absolute()
        options = [
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            "--window-size=1000,1400",
            "--screenshot=page.png",
        ]
        subprocess.run([browser, *options, page.as_uri()], check=True, capture_output=True)
        Image.open("page.png").convert("RGB").quantize(128).save(PICTURES / "report.png", optimize=True)


if __name__ == "__main__":
    main()
