"""Options that several commands share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from forgetbench.leaderboard.settings import Settings
    from forgetbench.runner.config import RunConfig

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
    time_limit: str | None = None
    """Longest time for one job of a method, such as 90s, 30m or 1h30m (default: none). A row that exceeds it fails."""

    def config(
        self, *, keep_models: bool = False, measure_relearning: bool = False, skip_oracles: bool = False
    ) -> RunConfig:
        """The configuration of a run."""
        from forgetbench.runner.config import RunConfig

        return RunConfig(
            root=self.root,
            device=self.device,
            engine=self.engine,
            workers=self.workers,
            jobs_per_gpu=self.jobs_per_gpu,
            time_limit=None if self.time_limit is None else parse_duration(self.time_limit),
            keep_models=keep_models,
            measure_relearning=measure_relearning,
            skip_oracles=skip_oracles,
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

        from forgetbench.errors import UsageError, field_message
        from forgetbench.leaderboard.settings import Settings

        given = {"database_url": self.database, "server_folder": self.data}
        try:
            return Settings.model_validate({name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            names = [str(item["loc"][0]).upper().removeprefix("FORGETBENCH_") for item in error.errors()]
            problems = "; ".join(
                f"FORGETBENCH_{name}: {field_message(item)}" for name, item in zip(names, error.errors(), strict=True)
            )
            raise UsageError(f"{problems}. Set or unset the variable; see docs/run-a-leaderboard.md.") from None


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
SERVER = ServerOptions()
