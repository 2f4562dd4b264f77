"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from forgetbench.leaderboard.settings import Settings
    from forgetbench.runner.config import RunConfig
    from forgetbench.tasks.task import Task

Flag = Annotated[bool, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON.", show_default=False)]
Selector = Annotated[
    Literal["oracle-free", "oracle"],
    Parameter(help="How a trial is judged: without retrained models, or by the distance to them."),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how models are trained and run; nothing here changes a result."""

    root: Path | None = None
    """Folder of the image sets on disk."""
    device: str = "auto"
    """torch device; auto uses all GPUs if there are any, cuda:NUMBER one of them."""
    engine: Annotated[str, Parameter(name=("--engine", "--executor"))] = "auto"
    """Where jobs run: processes of this machine, local (this process, one job after another), ray (a cluster on this
    machine, or RAY_ADDRESS), ray:HOST:PORT, or auto: processes on a CPU or on several GPUs, local on one GPU."""
    workers: int | None = None
    """Number of worker processes (default: one per core, or one per GPU)."""
    jobs_per_gpu: int = 1
    """Number of jobs that share a GPU."""
    store: str | None = None
    """URL of a bucket that keeps the artifacts for machines without a shared folder: s3://BUCKET/PREFIX, gs:// or az://
    (default: a folder, see `forgetbench store path`)."""
    time_limit: str | None = None
    """Longest time for one job of a method, such as 90s, 30m or 1h30m (default: none). A row that exceeds it fails."""

    def config(self, *, keep_models: bool = False, skip_oracles: bool = False, repeats: int = 1) -> RunConfig:
        """The configuration of a run."""
        from forgetbench.runner.config import RunConfig

        return RunConfig(
            root=self.root,
            device=self.device,
            engine=self.engine,
            workers=self.workers,
            jobs_per_gpu=self.jobs_per_gpu,
            store_url=self.store,
            time_limit=None if self.time_limit is None else parse_duration(self.time_limit),
            keep_models=keep_models,
            skip_oracles=skip_oracles,
            repeats=repeats,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """The methods of a command."""

    method: list[str] | None = None
    """NAME[:parameter=value,...], all (default), or sentinels. Can be repeated."""
    method_file: list[str] | None = None
    """FILE.py:CLASS[:parameter=value,...], a method in a file. Can be repeated."""

    @property
    def names(self) -> list[str]:
        """All methods in the order given."""
        return [*(self.method or []), *(self.method_file or [])] or ["all"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BoardOptions:
    """What is run on tasks."""

    seeds: int | None = None
    """Number of originals, and of oracles in each of the two sets; ranks need 6."""
    draws: int | None = None
    """Number of forget sets."""
    forget_indices: Path | None = None
    """Use a custom forget set, listed in a file (.npy, .npz, .json, .txt, .pt); a separate board."""
    salt: str | None = None
    """Repeat the sealed draws of a leaderboard's retired round, whose page shows this salt."""
    preset: str | None = None
    """Run every method with the values of a publication, such as `paper`; `show method` prints the presets."""
    tuned: Flag = False
    """Use the best hyper-parameters that `forgetbench tune` found; the row shows the number of trials."""
    selector: Selector = "oracle-free"
    """How a trial was judged: without retrained models, or by the distance to them."""
    repeats: int = 1
    """Runs of each method on each original, with other seeds of the method; from 2 on, the variance of each row is
    split into that of training and that of unlearning."""
    keep_models: Flag = False
    """Keep the weights of unlearned models in the store."""
    skip_oracles: Flag = False
    """Train nothing but the method and score nothing; originals come from `forgetbench pack pull`."""

    def tasks(self, patterns: Sequence[str]) -> list[Task]:
        """The tasks of names, wildcard patterns and task files.

        Raises:
            UsageError: A name, a number or a file is wrong.
        """
        from forgetbench.api.tasks import find_tasks
        from forgetbench.tasks.seal import parse_salt

        tasks = find_tasks(tuple(patterns), seeds=self.seeds, draws=self.draws, forget_indices=self.forget_indices)
        return tasks if self.salt is None else [task.with_sealed_draws(parse_salt(self.salt)) for task in tasks]


def as_words(options: object) -> list[str]:
    """The words of a command line that give options again; paths are absolute. Defaults are left out.

    Args:
        options: A dataclass of options.
    """
    words: list[str] = []
    for item in fields(options):  # type: ignore[arg-type]
        value = getattr(options, item.name)
        if value == item.default:
            continue
        name = f"--{item.name.replace('_', '-')}"
        for part in value if isinstance(value, list) else [value]:
            words += [name] if part is True else [name, str(part.resolve() if isinstance(part, Path) else part)]
    return words


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """The leaderboard server of this machine."""

    database: str | None = None
    """SQLAlchemy URL (default: a SQLite file in the server's folder)."""
    data: Path | None = None
    """Folder of the server."""

    def settings(self) -> Settings:
        """The server's settings: environment variables, overridden by these options.

        Raises:
            UsageError: An environment variable is not valid.
        """
        from pydantic import ValidationError

        from forgetbench.errors import UsageError
        from forgetbench.leaderboard.settings import Settings

        given = {"database_url": self.database, "server_folder": self.data}
        try:
            return Settings.model_validate({name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            problems = "; ".join(map(_setting_problem, error.errors()))
            raise UsageError(
                f"{problems.rstrip('.')}. Set or unset the variable; see docs/run-a-leaderboard.md."
            ) from None


def _setting_problem(item: Mapping[str, Any]) -> str:
    """Describe what is wrong with a setting; problems of several settings together name them themselves."""
    from forgetbench.errors import field_message

    name = str(item["loc"][0]).upper().removeprefix("FORGETBENCH_") if item["loc"] else ""
    return f"FORGETBENCH_{name}: {field_message(item)}" if name else field_message(item)


def parse_duration(text: str) -> float:
    """Seconds of a duration such as 90s, 30m, 1h30m, 2d or 45 (seconds).

    Raises:
        UsageError: The text is no duration.
    """
    from forgetbench.errors import UsageError

    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if match is None or not any(match.groups()):
        raise UsageError(f"--time-limit: {text!r} is not a duration. Write it as 90s, 30m, 2h or 1h30m.")
    return sum(float(part or 0) * unit for part, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True))


RUN = RunOptions()
METHODS = MethodOptions()
BOARD = BoardOptions()
SERVER = ServerOptions()
