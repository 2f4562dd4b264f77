"""Settings of the leaderboard, from environment variables ``FORGETBENCH_...``; every setting has a default."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote, unquote, urlsplit

from pydantic import AliasChoices, Field, HttpUrl, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from forgetbench.errors import described_pattern
from forgetbench.store import home


def _default_folder() -> Path:
    return home() / "leaderboard"


def is_private(address: str) -> bool:
    """Whether others cannot read what is sent to an address: it is encrypted, or leads to this machine."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and host in {"localhost", "127.0.0.1", "::1"})
    )


def words_of(text: str) -> list[str]:
    """Parts of a comma-separated setting."""
    return [part.strip() for part in text.split(",") if part.strip()]


class Settings(BaseSettings):
    """Configuration of a server. The environment variable of a setting ``name`` is ``FORGETBENCH_NAME``."""

    model_config = SettingsConfigDict(
        env_prefix="FORGETBENCH_", frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    server_folder: Path = Field(default_factory=_default_folder)
    """Folder of the server: database file, reference bundles, evidence."""
    database_url: str = ""
    """SQLAlchemy URL, such as ``postgresql+psycopg://user@host/name``; empty for a SQLite file in the folder."""
    site_title: str = Field(default="ForgetBench", min_length=1, max_length=60)
    """Title of the site, shown on every page."""
    public_url: HttpUrl | None = None
    """Public address of the site, for BibTeX, exports and commands; default: the address of each request. Requests for
    another host are then refused."""
    docs_url: HttpUrl | None = None
    """Address of the documentation as built by ``make docs``, to which pages then link."""
    token_help: str = "Ask the operator of this server for a token."  # noqa: S105 - a sentence, not a secret
    """How to get a token: one line of text on the submit page."""
    data_license: str = Field(
        default="CC-BY-4.0",
        min_length=1,
        max_length=200,
        validation_alias=AliasChoices("forgetbench_data_license", "forgetbench_data_licence"),
    )
    """License of listed entries, to which submitters agree; shown on the submit page and in dumps."""
    runner_folder: Path | None = None
    """The runner's own folder; default: ``runner`` in the server's folder. On another machine, a local disk."""
    max_upload_bytes: int = Field(default=512 * 2**20, ge=2**16)
    """Largest submission, in bytes."""
    max_manifest_bytes: int = Field(default=2**20, ge=2**10)
    """Largest manifest of a submission, in bytes."""
    daily_submissions: int = Field(default=50, ge=1)
    """Submissions of one token in 24 hours."""
    token_evidence_bytes: int = Field(default=16 * 2**30, ge=2**20)
    """Evidence of all submissions and second records of one token that the server keeps, in bytes."""
    alarm_attempts: int = Field(default=20, ge=1)
    """Submissions of one submitter with one method on one board; more raise an alarm for moderators."""
    reads_per_minute: int = Field(default=1200, ge=1)
    """Requests per minute from one address, and with one token; pages and reading API together."""
    writes_per_minute: int = Field(default=60, ge=1)
    """Write requests per minute from one address, and with one token."""
    trusted_proxies: str = ""
    """Comma-separated addresses or networks of reverse proxies whose X-Forwarded-For is trusted; ``*`` trusts all."""
    lease_seconds: float = Field(default=60.0, gt=0)
    """Time without a heartbeat after which the job of a dead worker runs again."""
    poll_seconds: float = Field(default=0.5, gt=0)
    """How often an idle worker looks for a job."""
    job_attempts: int = Field(default=3, ge=1)
    """Number of attempts before a job counts as failed."""
    lock_seconds: float = Field(default=10.0, gt=0)
    """How long a request waits for another change of an SQLite database; after that it gets 503."""
    min_free_bytes: int = Field(default=64 * 2**20, ge=0)
    """Space that uploads leave free on the disk of the server's folder, for the database; below it, /ready fails."""
    max_entries: int = Field(default=20_000, ge=1)
    """Submissions of one board, in all states."""
    webhook_url: HttpUrl | None = Field(default=None, repr=False)
    """Where the worker posts JSON about new items of the moderation queue; None for nowhere."""
    smtp_url: str = Field(
        default="", pattern=described_pattern(r"^(smtps?://.+)?$", "smtp://HOST:587 or smtps://..."), repr=False
    )
    """Mail server, ``smtp://USER:PASSWORD@HOST:587`` or ``smtps://...``, for the same in an e-mail; empty for none."""
    notify_email: str = ""
    """Comma-separated addresses of moderators."""
    notify_from: str = ""
    """Sender of these e-mails; the first of these addresses by default."""
    oidc_issuer: str = ""
    """Address of an OpenID Connect provider, as it names itself; people then make tokens by signing in. Empty: none."""
    oidc_client_id: str = ""
    """Id of this site at the provider."""
    oidc_client_secret: str = Field(default="", repr=False)
    """Secret of this site at the provider; empty for a public client."""
    oidc_name: str = Field(default="", max_length=60)
    """Name of the provider on pages; default: its host."""
    oidc_scopes: str = "openid profile email"
    """Scopes that the site requests, separated by spaces."""
    oidc_domains: str = ""
    """Comma-separated domains; only people with a verified e-mail address there may sign in. Empty: everyone."""
    oidc_groups: str = ""
    """Comma-separated groups; only their members may sign in. Empty: everyone."""
    oidc_groups_claim: str = Field(default="groups", min_length=1)
    """Claim of the provider that lists a person's groups."""
    oidc_token_days: int = Field(default=90, ge=1)
    """Days until a token expires that was made by signing in; to sign in again renews it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level of the log, which is JSON lines on standard error; ``info`` includes every request."""
    page_rows: int = Field(default=100, ge=1, le=1000)
    """Rows per page of a board; exports have all rows."""

    @field_validator("trusted_proxies")
    @classmethod
    def _check_addresses(cls, value: str) -> str:
        for address in filter(None, (part.strip() for part in value.split(","))):
            try:
                address == "*" or ip_network(address)
            except ValueError as error:
                raise ValueError(
                    f"{address!r} is not an address or network such as 10.0.0.7 or 10.0.0.0/8: {error}"
                ) from None
        return value

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        if not self.oidc_issuer:
            return self
        if not is_private(self.oidc_issuer):
            raise ValueError(
                f"FORGETBENCH_OIDC_ISSUER is {self.oidc_issuer!r}: write the provider's address as https://HOST/..."
            )
        if not self.oidc_client_id:
            raise ValueError("FORGETBENCH_OIDC_ISSUER needs FORGETBENCH_OIDC_CLIENT_ID, the site's id at the provider.")
        if self.public_url is None or not is_private(str(self.public_url)):
            raise ValueError(
                "FORGETBENCH_OIDC_ISSUER needs FORGETBENCH_PUBLIC_URL, an address that begins with https://: the "
                "provider sends people back to it."
            )
        if "openid" not in self.oidc_scopes.split():
            raise ValueError("FORGETBENCH_OIDC_SCOPES must have the scope openid, such as `openid profile email`.")
        return self

    @property
    def provider_name(self) -> str:
        """What pages call the identity provider; "" if people cannot sign in."""
        return self.oidc_name or urlsplit(self.oidc_issuer).hostname or ""

    @property
    def database(self) -> str:
        """URL of the database."""
        return self.database_url or f"sqlite:///{self.server_folder / 'leaderboard.sqlite'}"

    @property
    def root_path(self) -> str:
        """Path of the public address, quoted, without a slash at its end; "" at the root of a host."""
        path = (self.public_url.path or "") if self.public_url else ""
        return quote(unquote(path.rstrip("/")), safe="/")

    @property
    def evidence(self) -> Path:
        """Folder of accepted evidence, with one subfolder per submission."""
        return self.server_folder / "evidence"

    @property
    def incoming(self) -> Path:
        """Folder of uploads that are being checked."""
        return self.server_folder / "incoming"

    @property
    def runner(self) -> Path:
        """The runner's own folder: originals of boards, and what methods made of them. It may be on a local disk."""
        return self.runner_folder or self.server_folder / "runner"

    @property
    def packs(self) -> Path:
        """Folder of installed reference bundles."""
        return self.server_folder / "packs"

    @property
    def verified(self) -> Path:
        """Folder of the runner's evidence, with one subfolder per entry; that of sealed draws is never served."""
        return self.server_folder / "verified"

    @property
    def salt(self) -> Path:
        """File of the server's salt, from which the seeds of all sealed boards derive; readable by its owner only."""
        return self.server_folder / "salt"

    @property
    def sealed_home(self) -> Path:
        """Home of the models of sealed boards: not that of the user's own runs, which others may be able to read."""
        return self.server_folder / "sealed"
