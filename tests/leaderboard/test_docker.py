"""Container images: rules of their files, and their build and start without a container engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import compose_spec
import pytest
import yaml
from support.concurrency import LIMIT, wait_until

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
UNPRIVILEGED = 65534
"""User id without rights."""


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile: keyword and arguments."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = [" ".join(line.split()) for line in plain.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Stage -> its instructions, after those of its base stage."""
    result: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = result[name] = list(result.get(base, []))
        else:
            current.append((word, rest))
    return result


def last(stage: str, keyword: str) -> str:
    """Arguments of the last instruction with a keyword."""
    return [arguments for word, arguments in stages()[stage] if word == keyword][-1]


def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def sources() -> list[str]:
    """Files and folders that the build copies from the repository."""
    copied = [rest.split() for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    return [name for words in copied for name in words[:-1] if not name.startswith("--")]


def test_dockerfile_passes_hadolint():
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [program, "--failure-threshold", "style", DOCKER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", ["server", "runner"])
def test_image_runs_without_rights_and_with_a_safe_path(target):
    assert last(target, "USER") == "10001:10001"
    assert "PYTHONSAFEPATH=1" in last(target, "ENV")
    assert "HEALTHCHECK" in dict(stages()[target])
    assert last(target, "ENTRYPOINT") == '["entrypoint.sh"]'
    users = [number for number, (word, _) in enumerate(stages()[target]) if word == "USER"]
    assert not any(word in {"RUN", "ADD"} for word, _ in stages()[target][users[-1] :])


def test_base_images_are_arguments_and_nothing_is_downloaded():
    assert {rest.split()[0] for word, rest in instructions() if word == "FROM"} <= {"${BASE}", *stages()}
    assert re.fullmatch(r"BASE=python:3\.\d+-slim-\w+", next(rest for word, rest in instructions() if word == "ARG"))
    text = "".join(path.read_text(encoding="utf-8") for path in DOCKER.iterdir() if path.is_file())
    assert ":latest" not in text
    assert not any(word == "ADD" for word, _ in instructions())
    assert "http" not in re.sub(r"http://127\.0\.0\.1", "", text)


def test_copied_files_exist_and_are_not_ignored():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in sources():
        assert (ROOT / name).exists(), name
        assert name in allowed, name
    assert set(allowed) == set(sources())


def test_compose_file_is_valid_and_has_no_secret():
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)  # as the engine does for unset variables
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


def test_compose_uses_known_settings_only():
    from forgetbench.leaderboard.settings import Settings

    known = {f"FORGETBENCH_{name.upper()}" for name in Settings.model_fields}
    given = set(compose()["services"]["server"]["environment"])
    assert given - known == {"FORGETBENCH_DATABASE_PASSWORD_FILE"}  # the entrypoint's


def test_entrypoint_reads_the_password_from_its_file(tmp_path):
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


class Container:
    """A folder instead of a container, with a user without rights if the tests run as root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}
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
            for file in (path, *path.rglob("*")):
                os.chown(file, UNPRIVILEGED, UNPRIVILEGED)

    def run(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as the user of the container."""
        return subprocess.run(
            [str(word) for word in words],
            check=False,
            env=self.environment,
            cwd=cwd or self.folder / "data",
            capture_output=True,
            text=True,
            **self.user,
        )

    def call(self, *words: object, cwd: Path | None = None) -> str:
        """Run a command that must succeed; returns its output."""
        done = self.run(*words, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def container() -> Iterator[Container]:
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
        built = Container(folder)
        built.own(folder)
        yield built
    finally:
        shutil.rmtree(folder)


@pytest.mark.system
def test_server_image_serves_and_scores(container, world, tmp_path):
    """The steps of the Dockerfile in order: copy, install, start, health check; then a submission."""
    script, target, _ = last("server-installed", "RUN").split()
    container.call("sh", script, target, container.folder / "opt", cwd=container.folder / "build")
    assert "torch" not in container.call("uv", "pip", "freeze", "--python", container.folder / "opt/bin/python")
    data = container.folder / "data"
    pack, run = world.write_pack(data / "pack"), world.write_run(data / "run")
    container.own(data)
    entrypoint = container.folder / "build" / "docker" / "entrypoint.sh"
    container.call(entrypoint, "pack", "install", pack)
    token = container.call(entrypoint, "admin", "token", "create", "tester").split()[-1]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    command = [word.replace("8000", port) for word in json.loads(last("server", "CMD"))]
    check = json.loads(last("server", "HEALTHCHECK").partition("CMD ")[2].replace("8000", port))
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(entrypoint), *command], env=container.environment, cwd=data, stderr=log, **container.user
        )

        def is_healthy() -> bool:
            assert server.poll() is None, (tmp_path / "log").read_text()
            return container.run(*check).returncode == 0

        try:
            wait_until(is_healthy, "the health check")
            container.environment["FORGETBENCH_TOKEN"] = token
            output = container.call(
                entrypoint, "submit", run, "--server", f"http://127.0.0.1:{port}", "--yes", "--json"
            )
            assert json.loads(output)["state"] == "listed", output
        finally:
            server.terminate()
            assert server.wait(LIMIT) in {0, -15}, (tmp_path / "log").read_text()
