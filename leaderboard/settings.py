"""Settings of the leaderboard: from the environment (``FORGETBENCH_...``), each with a default that works."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, HttpUrl, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from forgetbench.store import home


def _folder() -> Path:
    return home() / "leaderboard"


class Settings(BaseSettings):
    """What an operator may choose. The environment variable of ``name`` is ``FORGETBENCH_NAME``."""

    model_config = SettingsConfigDict(env_prefix="FORGETBENCH_", frozen=True, extra="ignore", env_ignore_empty=True)

    server_folder: Path = Field(default_factory=_folder)
    """Folder of the server: database file, packs, evidence."""
    database_url: str = ""
    """SQLAlchemy URL, such as ``postgresql+psycopg://user@host/name``; empty means a SQLite file in the folder."""
    site_title: str = Field(default="ForgetBench", min_length=1, max_length=60)
    """Title of the site, shown on every page."""
    public_url: HttpUrl | None = None
    """Address under which readers see the site; used in BibTeX, exports and commands. None: taken from the request."""
    token_help: str = "Ask the operator of this server for a token."  # noqa: S105 - a sentence, not a secret
    """How a stranger gets a token: one line of text, shown on the submit page."""
    data_license: str = Field(default="CC-BY-4.0", min_length=1, max_length=200)
    """License of what is listed, to which whoever submits agrees; on the submit page, and in the head of a dump."""
    max_upload_bytes: int = Field(default=512 * 2**20, ge=2**16)
    """Largest submission that is received, in bytes."""
    max_manifest_bytes: int = Field(default=4 * 2**20, ge=2**10)
    """Largest manifest within a submission, in bytes."""
    daily_submissions: int = Field(default=50, ge=1)
    """Submissions that one token may make in 24 hours."""
    alarm_attempts: int = Field(default=20, ge=1)
    """Attempts of one submitter with one method on one board, beyond which a moderator is told."""
    reads_per_minute: int = Field(default=1200, ge=1)
    """Requests per minute from one address, and with one token; pages and reading API together."""
    writes_per_minute: int = Field(default=60, ge=1)
    """Writing requests per minute from one token, and from one address."""
    trusted_proxies: str = ""
    """Addresses or networks of reverse proxies, with commas: their X-Forwarded-For says who is counted. ``*``: any."""
    lease_seconds: float = Field(default=60.0, gt=0)
    """After this time without a heartbeat, a job of a worker that died is done again."""
    poll_seconds: float = Field(default=0.5, gt=0)
    """How often an idle worker looks for a job."""
    job_attempts: int = Field(default=3, ge=1)
    """How often a job is tried before it counts as failed."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What the log holds: one JSON object a line, on the standard error; ``info`` has a line for each request."""
    page_rows: int = Field(default=100, ge=1, le=1000)
    """Rows on one page of a board; exports give all."""

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        for one in filter(None, (part.strip() for part in value.split(","))):
            try:
                one == "*" or ip_network(one)
            except ValueError as error:
                raise ValueError(f"{one!r} is no address or network, such as 10.0.0.7 or 10.0.0.0/8: {error}") from None
        return value

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.server_folder / 'leaderboard.sqlite'}"

    @property
    def evidence(self) -> Path:
        """Where the evidence of submissions lies, one folder for each."""
        return self.server_folder / "evidence"

    @property
    def incoming(self) -> Path:
        """Where uploads lie while they are checked."""
        return self.server_folder / "incoming"

    @property
    def packs(self) -> Path:
        """Where installed packs lie."""
        return self.server_folder / "packs"
