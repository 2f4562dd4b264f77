"""What a submission makes public, in words: shown before anything is trained or sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetbench.evidence.environment import environment
from forgetbench.evidence.run import read_run
from forgetbench.importers.logits import METHOD_TOML, SOURCE, is_logits_folder, read_info
from forgetbench.leaderboard.client.http import LeaderboardClient
from forgetbench.method_label import MethodFile, is_method_file
from forgetbench.remote.submit import parse_single, require_task
from forgetbench.runner.config import RunConfig
from forgetbench.tasks.task import read_task

_EVIDENCE = "the logits of every unlearned model on the board's images, training images included"
_NO_SOURCE = "left out: the board's runner cannot run the method, so the row stays a claim and is never verified"


@dataclass(frozen=True)
class Publication:
    """What a submission makes public."""

    board: str
    """Task of the board."""
    method: str
    """Label of the row."""
    source: str
    """What is sent of the method's source, in words."""
    parameters: Mapping[str, Any]
    """All hyper-parameters."""
    environment: Mapping[str, str]
    """Versions and hardware; empty where nothing runs on this machine."""
    evidence: str
    """What is sent of models, in words."""

    def describe(self, server: str, owner: str, license_name: str) -> str:
        """The publication as text.

        Args:
            server: Address of the server.
            owner: Name of the token's owner.
            license_name: License of the server's entries; "" if it names none.
        """
        rows = {
            "submitter": owner,
            "board": self.board,
            "method": self.method,
            "source": self.source,
            "parameters": _assignments(self.parameters) or "none",
            "environment": _assignments(self.environment) or "none of this machine; the board's runner records its own",
            "evidence": self.evidence,
            "license": license_name or f"see {server}/submit",
        }
        width = max(map(len, rows))
        lines = [f"  {name:{width}}  {value}" for name, value in rows.items()]
        return "\n".join([f"Submitting to {server} makes public, once the row is listed:", *lines])


def describe_publication(
    source: str,
    server: str,
    token: str | None,
    task: str | None,
    config: RunConfig,
    *,
    remote: bool = False,
    with_source: bool = True,
) -> str:
    """What a submission makes public, as text. Nothing is trained or sent, and the token is checked.

    Args:
        source: What `prepare_submission` or `prepare_method` takes.
        server: The leaderboard's address.
        token: The token; None to read it from the environment or the private file.
        task: The board, if ``source`` is not a run.
        config: Where a method is run.
        remote: Whether only the method is sent.
        with_source: Whether the source is sent.

    Raises:
        UsageError: The call, the file or the token is wrong.
        ForgetBenchError: The server cannot be reached.
    """
    found = _read(source, task, config, remote=remote, with_source=with_source)
    with LeaderboardClient(server, token) as client:
        owner = client.whoami()
    return found.describe(client.server, owner.name, owner.license)


def _read(source: str, task: str | None, config: RunConfig, *, remote: bool, with_source: bool) -> Publication:
    folder = Path(source)
    if remote or (is_method_file(source) and not folder.is_dir()):
        return _of_method(source, require_task(task, source), config, remote=remote, with_source=with_source)
    if is_logits_folder(folder):
        info, code = read_info(folder), folder / SOURCE
        content = code.read_text(encoding="utf-8", errors="replace") if code.is_file() else None
        text = _source_words(content, with_source=with_source, path=SOURCE)
        facts = {"device": info.device} if info.device else environment("cpu")
        described = f"{_EVIDENCE}; title, links and cost of {METHOD_TOML}"
        return Publication(require_task(task, source), info.name, text, info.parameters, facts, described)
    manifest = read_run(folder).manifest
    method = manifest.method
    text = _source_words(method.source, with_source=with_source)
    return Publication(manifest.task, manifest.row, text, method.parameters, manifest.environment, _EVIDENCE)


def _of_method(source: str, name: str, config: RunConfig, *, remote: bool, with_source: bool) -> Publication:
    spec = parse_single(source, read_task(name))
    text = _source_words(
        spec.source, with_source=with_source, path=MethodFile.parse(spec.file).path if spec.file else ""
    )
    if remote:
        return Publication(name, spec.label, text, spec.parameters, {}, "what the board's runner records of it")
    return Publication(name, spec.label, text, spec.parameters, environment(config.env().device), _EVIDENCE)


def _source_words(text: str | None, *, with_source: bool, path: str = "") -> str:
    if text is None:
        return "none: the method is part of this package, or its code is not known"
    if not with_source:
        return _NO_SOURCE
    name = f"{Path(path).name}, " if path else ""
    return f"{name}{len(text.splitlines())} lines, in full"


def _assignments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
