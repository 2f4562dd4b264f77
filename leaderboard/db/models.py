"""The tables, typed. Nothing that was submitted is ever deleted; every change of state is a row of ``events``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

STATES = ("received", "scoring", "listed", "rejected", "flagged", "quarantined", "withdrawn")
"""States of an entry: the life of a submission."""
TIERS = ("reference", "recomputed", "reproduced")
"""How far an entry has been checked: an explicit field, never inferred."""
VERDICTS = ("received", "reproduced", "not reproduced", "failed")
"""What became of a verification."""
CHOICES = ("all", "reproduced")
"""Choices of tiers; each is ranked on its own."""
SCOPES = ("submit", "verify", "moderate")
"""What a token may do."""


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A time with its zone, always UTC; SQLite, which keeps no zone, gives it back as well."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - its signature
        """Refuse a time without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables: constraints have names, so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        str: Text(),
    }


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Board(Base):
    """A task on this server: one installed pack. A newer pack of the same task supersedes it; both stay readable."""

    __tablename__ = "boards"
    __table_args__ = (
        Index(
            "uq_boards_task_current",
            "task",
            unique=True,
            sqlite_where=text("superseded_at IS NULL"),
            postgresql_where=text("superseded_at IS NULL"),
        ),
        UniqueConstraint("task", "pack_sha256"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str]
    protocol: Mapped[int]
    task_key: Mapped[str] = mapped_column(String(64))
    pack_sha256: Mapped[str] = mapped_column(String(64))
    title: Mapped[str]
    track: Mapped[str]
    scenario: Mapped[str]
    seeds: Mapped[int]
    draws: Mapped[int]
    image_set: Mapped[dict[str, Any]]
    definition: Mapped[dict[str, Any]]
    installed_at: Mapped[datetime]
    superseded_at: Mapped[datetime | None]
    summary: Mapped[dict[str, Any] | None]
    """What the worker found out about the board as a whole: which metrics rank, bands, why it does not rank."""
    ranked_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=0)
    """Goes up with every visible change: it is the ETag of the board's pages."""


class Token(Base):
    """Who may write. The secret is shown once and never stored."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str]
    scopes: Mapped[list[str]]
    secret_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    daily_submissions: Mapped[int | None]
    """A quota of its own; None: the server's."""


class Entry(Base):
    """A submission, on its way to a board or there; also the server's own reference rows."""

    __tablename__ = "entries"
    __table_args__ = (
        CheckConstraint(_one_of("state", STATES), name="state"),
        CheckConstraint(_one_of("tier", TIERS), name="tier"),
        CheckConstraint("(tier = 'reference') = (token_id IS NULL)", name="owner"),
        Index("ix_entries_overview", "board_id", "state", "tier", "status", "family"),
        Index("ix_entries_token_id_received_at", "token_id", "received_at"),
        Index("ix_entries_method", "method"),
        Index("ix_entries_queued", "queued", sqlite_where=text("queued = 1"), postgresql_where=text("queued")),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id"))
    token_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.id"))
    submitter: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    tier: Mapped[str] = mapped_column(String(16))
    note: Mapped[str] = mapped_column(default="")
    """Reason of the present state, where it needs one."""
    received_at: Mapped[datetime]
    listed_at: Mapped[datetime | None]

    method: Mapped[str]
    label: Mapped[str]
    """The row's name: the method, with the parameters that set it apart."""
    family: Mapped[str]
    needs_retain: Mapped[bool]
    changes_training: Mapped[bool]
    sentinel: Mapped[bool]
    manifest_sha256: Mapped[str] = mapped_column(String(64))

    status: Mapped[str | None] = mapped_column(String(32))
    """``ranked``, or why not; None while it is not scored."""
    reasons: Mapped[list[str] | None]
    flags: Mapped[list[str] | None]
    distance: Mapped[float | None]
    distance_low: Mapped[float | None]
    distance_high: Mapped[float | None]
    cost: Mapped[float | None]
    """FLOPs over retraining's, as the submitter measured them."""
    budget: Mapped[int | None]
    """Budget class of the cost: 1, 5, 20 or 100 per cent; 101 above."""
    inside: Mapped[bool | None]
    """Whether its distance is within the family band: not told from retraining."""
    alarms: Mapped[list[str] | None]
    """What a moderator should know, one sentence each; it changes no rank. None where older code scored it."""
    queued: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it waits for a moderator's look: by an alarm or its state, until acknowledged."""
    search_text: Mapped[str]
    manifest: Mapped[dict[str, Any]]
    """Last of the columns: a scan for the others does not read it."""

    board: Mapped[Board] = relationship()


class Score(Base):
    """The scorecard of an entry, whole. Its primary key keeps an entry from being scored twice."""

    __tablename__ = "scores"

    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    card: Mapped[dict[str, Any]]
    """The scorecard, every number of it."""
    brief: Mapped[dict[str, Any]]
    """What of it the ranking reads, so that ranking a large board does not read the rest."""
    software: Mapped[dict[str, Any]]
    """Versions that computed it."""
    seconds: Mapped[float]
    scored_at: Mapped[datetime]
    phi: Mapped[dict[str, Any] | None]
    """Where phi of the forgotten examples lies, as shares in the bins of the board; None where older code scored it."""


class MetricValue(Base):
    """One number of a scorecard, in a row of its own, so that boards are sorted and filtered by the database."""

    __tablename__ = "metric_values"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - a sort by a metric looks up one value for each row

    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(64), primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id"))
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    z: Mapped[float | None]
    note: Mapped[str] = mapped_column(default="")
    """Why there is no value."""


class Placing(Base):
    """The place of a ranked entry among the rows of one choice of tiers."""

    __tablename__ = "placings"
    __table_args__ = (
        CheckConstraint(_one_of("scope", CHOICES), name="scope"),
        Index("ix_placings_board_id_scope_position", "board_id", "scope", "position"),
    )

    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    scope: Mapped[str] = mapped_column(String(16), primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id"))
    position: Mapped[int]
    """Place by distance, from 1."""
    low: Mapped[int]
    """First place that its tie group spans."""
    high: Mapped[int]
    """Last place that its tie group spans."""
    tie_group: Mapped[int]
    """Number of its tie group, from 1."""


class EvidenceFile(Base):
    """One evidence file of an entry; its answers may stand on a board only once."""

    __tablename__ = "evidence_files"
    __table_args__ = (
        Index(
            "uq_evidence_files_board_id_answers",
            "board_id",
            "answers",
            unique=True,
            sqlite_where=text("counted = 1"),
            postgresql_where=text("counted"),
        ),
    )

    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    answers: Mapped[str] = mapped_column(String(64))
    """Hash of the answers themselves, however the file was packed."""
    counted: Mapped[bool]
    """Whether it counts as used: not for a rejected entry, and not where the model is the untouched original."""


class Event(Base):
    """One change of an entry's state or tier. Rows are added and never changed (a trigger holds this)."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_entry_id", "entry_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"))
    at: Mapped[datetime]
    actor: Mapped[str]
    before: Mapped[str | None] = mapped_column(String(16))
    after: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str]


class Job(Base):
    """Work for the scoring process. Of one key at most one waits and one runs: what is asked for twice is done once."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(_one_of("state", ("waiting", "running", "done", "failed")), name="state"),
        Index(
            "uq_jobs_key_waiting",
            "key",
            unique=True,
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
        Index(
            "uq_jobs_key_running",
            "key",
            unique=True,
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index("ix_jobs_state_priority", "state", "priority"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str]
    kind: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str]
    """The id of the entry, the verification or the board."""
    priority: Mapped[int] = mapped_column(default=0)
    """Lower first."""
    state: Mapped[str] = mapped_column(String(16))
    """``failed`` until the same is asked for again; then it is ``done``."""
    attempts: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Verification(Base):
    """A second record of an entry: a verifier ran the recipe again. Both records are kept."""

    __tablename__ = "verifications"
    __table_args__ = (
        CheckConstraint(_one_of("verdict", VERDICTS), name="verdict"),
        Index("ix_verifications_entry_id", "entry_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"))
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id"))
    verifier: Mapped[str]
    received_at: Mapped[datetime]
    manifest: Mapped[dict[str, Any]]
    body_sha256: Mapped[str] = mapped_column(String(64))
    verdict: Mapped[str] = mapped_column(String(16))
    card: Mapped[dict[str, Any] | None]
    comparison: Mapped[dict[str, Any] | None]
    """Ranking metric -> difference of the two records, with its 95 % interval."""
    identical: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it holds the very answers of the first record, to the bit: run alike, or copied."""
    note: Mapped[str | None]
    """Why it failed, where it did."""


class ScoringProcess(Base):
    """A worker and when it was last heard of, so that the site can say that nothing is scored."""

    __tablename__ = "scoring_processes"

    name: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(64))
    """Hash of its scoring code."""
    seen_at: Mapped[datetime]


class RateCount(Base):
    """Requests counted in a window of time, where several web processes share the count."""

    __tablename__ = "rate_counts"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    count: Mapped[int]
    expires_at: Mapped[float]
    """Seconds since 1970."""


class IdempotencyKey(Base):
    """The first answer to a request, which its repetition gets again."""

    __tablename__ = "idempotency_keys"

    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"))
    created_at: Mapped[datetime]
