"""The images: rules that their files keep, and the same steps without a Docker engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import compose_spec
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
NOBODY = 65534


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: word and the rest, comments and line ends taken out."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = [" ".join(line.split()) for line in plain.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Stage -> its instructions, those of the stage that it begins from first."""
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = found[name] = list(found.get(base, []))
        else:
            current.append((word, rest))
    return found


def last(stage: str, word: str) -> str:
    return [rest for one, rest in stages()[stage] if one == word][-1]


def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def sources() -> list[str]:
    """What the build copies from the repository."""
    copied = [rest.split() for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    return [name for words in copied for name in words[:-1] if not name.startswith("--")]


def test_hadolint_finds_nothing():
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [program, "--failure-threshold", "style", DOCKER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", ["server", "runner"])
def test_an_image_runs_without_rights_and_imports_nothing_by_accident(target):
    assert last(target, "USER") == "10001:10001"
    assert "PYTHONSAFEPATH=1" in last(target, "ENV")
    assert "HEALTHCHECK" in dict(stages()[target])
    assert last(target, "ENTRYPOINT") == '["entrypoint.sh"]'
    users = [number for number, (word, _) in enumerate(stages()[target]) if word == "USER"]
    assert not any(word in {"RUN", "ADD"} for word, _ in stages()[target][users[-1] :])


def test_bases_are_named_by_the_builder_and_nothing_is_fetched_by_address():
    assert {rest.split()[0] for word, rest in instructions() if word == "FROM"} <= {"${BASE}", *stages()}
    assert re.fullmatch(r"BASE=python:3\.\d+-slim-\w+", next(rest for word, rest in instructions() if word == "ARG"))
    text = "".join(path.read_text(encoding="utf-8") for path in DOCKER.iterdir() if path.is_file())
    assert ":latest" not in text
    assert not any(word == "ADD" for word, _ in instructions())
    assert "http" not in re.sub(r"http://127\.0\.0\.1", "", text)


def test_every_source_exists_and_reaches_the_engine():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in sources():
        assert (ROOT / name).exists(), name
        assert name in allowed, name
    assert set(allowed) == set(sources())


def test_compose_follows_its_specification_and_holds_no_secret():
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)  # as the engine does where a variable is not set
    read = compose_spec.PyOptions(apply_merge=True).from_yaml(filled)
    read.validate()
    assert set(read.to_spec().services) == {"server", "worker", "database"}
    assert not re.search(
        r"(?i)(password|secret|token)\s*[:=]\s*['\"]?[A-Za-z0-9/+]{8,}", text.replace("run/secrets", "")
    )
    services = compose()["services"]
    assert set(services) == {"server", "worker", "database"}
    for name, service in services.items():
        assert not service["image"].endswith(":latest"), name
        assert "healthcheck" in service or name == "server", name  # the server's is the image's own
        assert service["secrets"] == ["database-password"], name
        assert service["volumes"], name
    for name in ("server", "worker"):
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["read_only"] is True
    assert services["server"]["ports"] == ["127.0.0.1:8000:8000"]
    assert "--no-worker" in services["server"]["command"]


def test_every_setting_in_compose_is_one_of_the_servers():
    from forgetbench.leaderboard.settings import Settings

    known = {f"FORGETBENCH_{name.upper()}" for name in Settings.model_fields}
    given = set(compose()["services"]["server"]["environment"])
    assert given - known == {"FORGETBENCH_DATABASE_PASSWORD_FILE"}  # the entrypoint's


def test_the_password_comes_from_its_file(tmp_path):
    fake = tmp_path / "forgetbench"
    fake.write_text('#!/bin/sh\necho "$PGPASSWORD $*"\n')
    fake.chmod(0o755)
    (tmp_path / "password").write_text("s3cret\n")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    call = [str(DOCKER / "entrypoint.sh"), "serve", "--port", "1"]
    secret = {"FORGETBENCH_DATABASE_PASSWORD_FILE": str(tmp_path / "password")}
    said = subprocess.run(call, env=environment | secret, capture_output=True, text=True, check=True).stdout
    assert said == "s3cret serve --port 1\n"
    assert (
        subprocess.run(call, env=environment, capture_output=True, text=True, check=True).stdout == " serve --port 1\n"
    )
    missing = {"FORGETBENCH_DATABASE_PASSWORD_FILE": str(tmp_path / "nowhere")}
    assert subprocess.run(call, env=environment | missing, capture_output=True, check=False).returncode != 0


class Machine:
    """A folder in place of an image, and a user without rights where the tests may become one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        path = f"{folder}/opt/bin:{folder}/tools:{os.environ['PATH']}"
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("FORGETBENCH_", "VIRTUAL_ENV"))
            },
            "PATH": path,
            "HOME": str(folder / "data"),
            "PYTHONSAFEPATH": "1",
            "FORGETBENCH_HOME": str(folder / "data"),
        }

    def own(self, path: Path) -> None:
        if self.user:
            for one in (path, *path.rglob("*")):
                os.chown(one, NOBODY, NOBODY)

    def call(self, *words: object, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            check=False,
            env=self.environment,
            cwd=cwd or self.folder / "data",
            capture_output=True,
            text=True,
            **self.user,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="forgetbench-image-"))
    folder.chmod(0o755)
    try:
        for name in ("build", "data", "tools"):
            (folder / name).mkdir()
        for name in sources():
            source, target = ROOT / name, folder / "build" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        shutil.copy(str(uv), folder / "tools" / "uv")
        built = Machine(folder)
        built.own(folder)
        yield built
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_the_servers_image_serves_and_scores(machine, world, tmp_path):
    """The steps of the Dockerfile, one after the other: copy, install, start, health check; then a submission."""
    script, target, _ = last("server-installed", "RUN").split()
    machine.call("sh", script, target, machine.folder / "opt", cwd=machine.folder / "build")
    assert "torch" not in machine.call("uv", "pip", "freeze", "--python", machine.folder / "opt/bin/python")
    pack, run = world.write_pack(machine.folder / "data" / "pack"), world.write_run(machine.folder / "data" / "run")
    machine.own(machine.folder / "data")
    entry = machine.folder / "build" / "docker" / "entrypoint.sh"
    machine.call(entry, "pack", "install", pack)
    token = machine.call(entry, "admin", "token", "create", "tester").split()[-1]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    command = [word.replace("8000", port) for word in json.loads(last("server", "CMD"))]
    check = json.loads(last("server", "HEALTHCHECK").partition("CMD ")[2].replace("8000", port))
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(entry), *command], env=machine.environment, cwd=machine.folder / "data", stderr=log, **machine.user
        )
        try:
            wait_until_healthy(machine, check, server)
            machine.environment["FORGETBENCH_TOKEN"] = token
            said = machine.call(entry, "submit", run, "--server", f"http://127.0.0.1:{port}", "--json")
            assert json.loads(said)["state"] == "listed", said
        finally:
            server.terminate()
            assert server.wait(30) in {0, -15}, (tmp_path / "log").read_text()


def wait_until_healthy(machine: Machine, check: list[str], server: subprocess.Popen) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        done = subprocess.run(
            check, check=False, env=machine.environment, capture_output=True, cwd=machine.folder, **machine.user
        )
        if done.returncode == 0:
            return
        time.sleep(0.5)
    raise AssertionError("the server did not become healthy")
