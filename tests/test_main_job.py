"""The main job on photographs of real people: run, serve, submit, and look at the board in a browser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

METHODS = ("finetune", "ssd", "random-label")


def forgetbench(home: Path, *words: object, token: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FORGETBENCH_HOME": str(home), "FORGETBENCH_TOKEN": token}
    return subprocess.run(
        [sys.executable, "-m", "forgetbench", *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )


@contextmanager
def served(home: Path) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [sys.executable, "-m", "forgetbench", "serve", "--port", str(port)]
    environment = {**os.environ, "FORGETBENCH_HOME": str(home)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_main_job_photographs_to_a_board(real_data: Path, chromium: str, own_home: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    asked = [word for name in METHODS for word in ("--method", name)]
    ran = forgetbench(own_home, "run", "cmu-faces/cnn/identity", *asked, "--root", real_data, "--seeds", 2)
    assert ran.returncode == 0, ran.stderr
    assert "Informational board" in ran.stdout  # two seeds show scores, and no ranks
    folders = [line.removeprefix("evidence: ") for line in ran.stderr.splitlines() if line.startswith("evidence: ")]
    assert len(folders) == len(METHODS)
    [pack] = (path.parent for path in (own_home / "packs").rglob("pack.json"))
    assert forgetbench(own_home, "pack", "install", pack).returncode == 0
    made = forgetbench(own_home, "admin", "token", "create", "Ada")
    token = made.stdout.strip()
    with served(own_home) as address:
        dry = forgetbench(own_home, "submit", folders[0], "--server", address, "--dry-run", token=token)
        assert dry.returncode == 0, dry.stderr
        for folder in folders:
            posted = forgetbench(own_home, "submit", folder, "--server", address, "--yes", token=token)
            assert posted.returncode == 0, posted.stderr
            assert "listed" in posted.stdout
        wrong = forgetbench(own_home, "submit", folders[0], "--server", address, "--yes", token=token[:-1] + "x")
        assert wrong.returncode == 2
        assert "token" in wrong.stderr
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            )
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(f"{address}/boards/cmu-faces/cnn/identity")
            text = page.inner_text("body")
            for row in ("Retrain", "No unlearning", *METHODS):
                assert row in text
            screenshot = tmp_path / "board.png"
            page.screenshot(path=screenshot, full_page=True)
            assert screenshot.stat().st_size > 20_000
            browser.close()
