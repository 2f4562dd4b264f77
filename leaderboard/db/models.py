"""Typed database models.

The row of a submission is never deleted, and every change of an entry's state is a row of ``events``.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
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

from forgetbench.evidence.run import MethodRecord
from forgetbench.store import JsonObject

STATES = ("received", "scoring", "accepted", "listed", "rejected", "flagged", "quarantined", "withdrawn", "purged")
"""States of an entry; `db.states` has the transitions."""
TIERS = ("claimed", "verified", "reference")
"""Who ran an entry: its submitter, this board's runner, or this board's operator. Set explicitly, never inferred."""
ERASED = "erased"
"""What a purge leaves of a text."""
MAX_SEARCH_TEXT = 400
"""Longest text that a search looks at: PostgreSQL limits the rows of an index to 2,700 bytes."""
RUN_STATES = ("waiting", "running", "done", "failed")
"""States of a run of a method by the board's runner."""
ATTACK_STATES = ("received", "claimed", "repeated", "failed")
OUTCOMES = ("received", "reproduced", "not reproduced", "failed")
"""Outcomes of a verification."""
RANKING_SCOPES = ("ranked", "claimed", "own originals")
"""The rankings of a board; an entry has a place in one of them, see `ranking_scope`."""
VISIBILITIES = ("public", "own", "accepted")
"""What submitters see of a round's submissions before its results are revealed: everything, their own numbers, or only
that a submission was accepted."""
TOKEN_SCOPES = ("submit", "verify", "run", "moderate")
"""Permissions of a token. What a token with ``run`` submits was run by the operator."""


def ranking_scope(tier: str, *, changes_training: bool) -> str | None:
    """The ranking that an entry is part of: claimed rows have places among themselves only.

    A method that trains its own originals has a place among such methods, if the board's runner trained them; claims
    with own originals have none.
    """
    if changes_training:
        return None if tier == "claimed" else "own originals"
    return "claimed" if tier == "claimed" else "ranked"


def search_text(label: str, method: MethodRecord, submitter: str) -> str:
    """What a search looks at for an entry, in lower case."""
    return " ".join([label, method.name, method.family, submitter, method.title]).casefold()[:MAX_SEARCH_TEXT]


def utc_now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Time in UTC with its zone, which SQLite does not store."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - signature of the base class
        """Convert to UTC; a naive time is an error."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("The time has no zone; use utc_now().")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Restore the zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all models; constraints are named, so that migrations can change them."""

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
        JsonObject: JSON(),
        list[str]: JSON(),
        str: Text(),
    }


def _one_of(column: str, values: tuple[str, ...]) -> str:
    """SQL condition of a check constraint: the column has one of these values."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Board(Base):
    """A task on this server, from one reference bundle; a newer bundle supersedes it, and both stay readable."""

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
        CheckConstraint(_one_of("visibility", VISIBILITIES), name="visibility"),
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
    image_set: Mapped[JsonObject]
    definition: Mapped[JsonObject]
    installed_at: Mapped[datetime]
    superseded_at: Mapped[datetime | None]
    round: Mapped[int | None]
    """Number of a sealed board's round, from 1; None for a board whose oracles anyone can train."""
    salt: Mapped[str | None]
    """The salt of a sealed board's round, once it is published; before that it is in the server's folder only."""
    revealed_at: Mapped[datetime | None]
    """When the salt was published, which ends the round: the board accepts no more submissions."""
    opens_at: Mapped[datetime | None]
    """Start of the present round of submissions; None if it has none. `submissions.rounds` has the rules."""
    closes_at: Mapped[datetime | None]
    """From then on the board accepts no more submissions; None if it stays open."""
    reveals_at: Mapped[datetime | None]
    """When a worker reveals the results of the round; None if the operator does."""
    visibility: Mapped[str] = mapped_column(String(16), default="public", server_default="public")
    """What submitters see before the results are revealed; ``public`` afterwards."""
    team_submissions: Mapped[int | None]
    """Submissions of one team in the round; None for no limit but the daily one."""
    final_only: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the runner runs only the last submission of each team, after the round has closed."""
    finals_at: Mapped[datetime | None]
    """When the final evaluation of the round was requested; None before."""
    summary: Mapped[JsonObject | None]
    """Columns with their oracle bands, ranking metrics, and why the board does not rank, if so; None before the first
    ranking. `worker.scoring.board_summary` writes it."""
    ranked_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=0)
    """Incremented with every visible change; part of the ETag of the board's pages."""

    @property
    def sealed(self) -> bool:
        """Whether verified rows are ranked on draws that only the server's runner sees."""
        return self.round is not None

    @property
    def retired(self) -> bool:
        """Whether the salt of its round was published, so that anyone can train its oracles."""
        return self.revealed_at is not None


class Token(Base):
    """A bearer token. The secret is shown once and never stored."""

    __tablename__ = "tokens"
    __table_args__ = (Index("uq_tokens_identity", "identity", unique=True),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str]
    team: Mapped[str | None]
    """Team of its owner, which is shown as the submitter; its members share entries and quotas."""
    scopes: Mapped[list[str]]
    secret_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    daily_submissions: Mapped[int | None]
    """Submissions in 24 hours; None for the server's quota."""
    identity: Mapped[str | None] = mapped_column(String(64))
    """Hash of the account with which its owner signed in; None for a token that was made otherwise."""

    @property
    def submitter(self) -> str:
        """What boards show as the submitter of its entries."""
        return self.team or self.name


class Invitation(Base):
    """An invitation code, with which people make their own tokens. The code is shown once and never stored."""

    __tablename__ = "invitations"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    team: Mapped[str | None]
    """The team that its tokens belong to; None if everyone names their own."""
    uses: Mapped[int]
    """Tokens that can still be made with it."""
    token_days: Mapped[int | None]
    """Days until these tokens expire; None for never."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class SignIn(Base):
    """A sign-in that waits for the provider's answer, or then for the person to make a token; each row is used once."""

    __tablename__ = "sign_ins"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of a secret that only the person's browser has."""
    state: Mapped[str] = mapped_column(String(64))
    """What the provider's answer must repeat; "" once it has answered."""
    nonce: Mapped[str] = mapped_column(String(64))
    """What the ID token must repeat; "" once the provider has answered."""
    verifier: Mapped[str] = mapped_column(String(64))
    """Proof key for the code exchange (RFC 7636); "" once the provider has answered."""
    identity: Mapped[str] = mapped_column(String(64))
    """Hash of the account; "" until the provider has answered."""
    name: Mapped[str]
    """What the provider calls the person; "" until it has answered."""
    expires_at: Mapped[datetime]


class Entry(Base):
    """A submission in any state, or a baseline of the server."""

    __tablename__ = "entries"
    __table_args__ = (
        CheckConstraint(_one_of("state", STATES), name="state"),
        CheckConstraint(_one_of("tier", TIERS), name="tier"),
        CheckConstraint("baseline = (token_id IS NULL) AND (tier = 'reference' OR NOT baseline)", name="owner"),
        # all that counting, filtering and searching reads; a scan of the rows themselves takes ten times as long
        Index(
            "ix_entries_overview",
            *(
                "board_id",
                "state",
                "baseline",
                "tier",
                "status",
                "family",
                "changes_training",
                "needs_retain",
                "budget",
            ),
            *("id", "search_text"),
        ),
        Index(
            "ix_entries_baseline",
            "board_id",
            sqlite_where=text("baseline = 1"),
            postgresql_where=text("baseline"),
        ),
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
    baseline: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it is one of the server's own rows, Retrain and No unlearning, which are shown first and not ranked."""
    reproductions: Mapped[int] = mapped_column(default=0, server_default="0")
    """Number of other people whose run of the recipe agreed."""
    note: Mapped[str] = mapped_column(default="")
    """Reason of the current state, or ""."""
    received_at: Mapped[datetime]
    listed_at: Mapped[datetime | None]

    method: Mapped[str]
    label: Mapped[str]
    """Name of the row: the method, with the hyper-parameters that differ from the defaults."""
    family: Mapped[str]
    needs_retain: Mapped[bool]
    changes_training: Mapped[bool]
    sentinel: Mapped[bool]
    fingerprint: Mapped[str | None] = mapped_column(String(80))
    """What identifies the method's behavior, as the manifest says."""
    registered: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it is a method of this package as this server has it: name and fingerprint agree, without a source."""
    manifest_sha256: Mapped[str] = mapped_column(String(64))

    status: Mapped[str | None] = mapped_column(String(32))
    """``ranked``, or the short reason why not; None before it is scored."""
    reasons: Mapped[list[str] | None]
    flags: Mapped[list[str] | None]
    distance: Mapped[float | None]
    distance_low: Mapped[float | None]
    distance_high: Mapped[float | None]
    verdict: Mapped[str | None] = mapped_column(String(32))
    """What it achieves in words (`scoring.scorecards.Verdict`); None where the board does not rank."""
    forgotten: Mapped[float | None]
    """Share of the way from No unlearning to Retrain."""
    forgotten_low: Mapped[float | None]
    forgotten_high: Mapped[float | None]
    harm: Mapped[float | None]
    """Accuracy lost beyond retraining's, as a share."""
    harm_low: Mapped[float | None]
    harm_high: Mapped[float | None]
    cost: Mapped[float | None]
    """FLOPs divided by those of retraining, as the submitter measured them."""
    budget: Mapped[int | None]
    """Smallest of 1, 5, 20 and 100 percent that the cost does not exceed; 101 above retraining."""
    cost_class: Mapped[str | None] = mapped_column(String(32))
    """Class of the cost that the runner measured, such as ``5 %`` or ``retraining``; None where it measured nothing."""
    outcome: Mapped[JsonObject | None]
    """What its scorecard says of the distance and of recalibration (`boards.queries.Outcome`); None before a score."""
    within_band: Mapped[bool | None]
    """Whether the distance is within the family band: indistinguishable from retraining."""
    alarms: Mapped[list[str] | None]
    """Sentences for moderators. None if a version without alarms scored the entry."""
    suspended: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether an alarm that matters took its place, until a moderator has acknowledged it."""
    queued: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it is in the moderation queue, because of an alarm or its state, until acknowledged."""
    search_text: Mapped[str]
    """What a search looks at: label, method, title, family and submitter, at most `MAX_SEARCH_TEXT` characters."""
    manifest: Mapped[JsonObject]
    """The last column, because it is large: a scan of the other columns does not read it."""

    board: Mapped[Board] = relationship()
    token: Mapped[Token | None] = relationship()


class Score(Base):
    """The scorecard of an entry. The primary key prevents a second score."""

    __tablename__ = "scores"

    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    card: Mapped[JsonObject]
    """The complete scorecard."""
    brief: Mapped[JsonObject]
    """The part that the ranking needs, so that ranking a large board reads little."""
    software: Mapped[JsonObject]
    """Versions of the packages that computed it, and the hash of the scoring code."""
    seconds: Mapped[float]
    scored_at: Mapped[datetime]
    phi: Mapped[JsonObject | None]
    """Histogram of phi on the forgotten examples, in the bins of the board; None for scores of older versions."""
    public: Mapped[JsonObject | None]
    """The scorecard on public draws of an entry that is ranked on sealed draws; None for other entries."""
    leaks: Mapped[JsonObject | None]
    """The forgotten examples of public draws that leak most, and the people of the forget sets (`boards.leaks`); None
    for scores of older versions."""
    sketch: Mapped[bytes | None]
    """Inner products of its answers on public draws with the board's models, in float64, to find copies; None for
    baselines, and for scores of older versions (`submissions.likeness.Likeness.sketch`)."""


class MetricValue(Base):
    """One value of a scorecard, as a row, so that the database sorts and filters boards."""

    __tablename__ = "metric_values"
    __table_args__ = (
        Index("ix_metric_values_sort", "board_id", "metric", "entry_id", "value"),
        {"sqlite_with_rowid": False},  # a sort by a metric looks up one value per row
    )

    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(64), primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id"))
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    z: Mapped[float | None]
    note: Mapped[str] = mapped_column(default="")
    """Reason of a missing value, or ""."""


class Placing(Base):
    """Rank of an entry among the rows of its tiers."""

    __tablename__ = "placings"
    __table_args__ = (
        CheckConstraint(_one_of("scope", RANKING_SCOPES), name="scope"),
        Index("ix_placings_board_id_scope_position", "board_id", "scope", "position"),
        Index("ix_placings_entry_id_position", "entry_id", "position"),
    )

    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    scope: Mapped[str] = mapped_column(String(16), primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id"))
    position: Mapped[int]
    """Rank by distance, from 1."""
    low: Mapped[int]
    """Best rank of its rank interval."""
    high: Mapped[int]
    """Worst rank of its rank interval."""


class PastPlacing(Base):
    """Place of an entry at the end of a day on which it changed; the last one before a day holds on that day."""

    __tablename__ = "past_placings"
    __table_args__ = (
        CheckConstraint(_one_of("scope", RANKING_SCOPES), name="scope"),
        Index("ix_past_placings_board_id_day", "board_id", "day"),
    )

    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    """Day in UTC."""
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id"))
    scope: Mapped[str] = mapped_column(String(16))
    position: Mapped[int | None]
    """Rank by distance, from 1; None if the entry was no longer ranked."""
    low: Mapped[int | None]
    high: Mapped[int | None]
    distance: Mapped[float | None]
    verdict: Mapped[str | None] = mapped_column(String(32))


class EvidenceFile(Base):
    """An evidence file of an entry; the same logits are accepted only once per board."""

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
    """Hash of the logits, independent of how the file is compressed (`submissions.uploads.logits_digest`)."""
    counted: Mapped[bool]
    """Whether the logits count as used: not for rejected entries, and not if the model is the unchanged original."""


class Event(Base):
    """A change of an entry's state or tier. Append-only, enforced by a trigger.

    Only the purge of an entry changes its events: it replaces actor and reason by `ERASED`.
    """

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
    """A job of the scoring worker. At most one job of a key is waiting and one running, so requests coalesce."""

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
    """Id of the entry, the verification or the board."""
    priority: Mapped[int] = mapped_column(default=0)
    """Lower values run first."""
    state: Mapped[str] = mapped_column(String(16))
    """``failed`` becomes ``done`` when the same job is enqueued again."""
    attempts: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Verification(Base):
    """A second record of an entry, from another person who ran the recipe again. Both records are stored."""

    __tablename__ = "verifications"
    __table_args__ = (
        CheckConstraint(_one_of("outcome", OUTCOMES), name="outcome"),
        Index("ix_verifications_entry_id", "entry_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"))
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id"))
    verifier: Mapped[str]
    received_at: Mapped[datetime]
    manifest: Mapped[JsonObject]
    body_sha256: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    card: Mapped[JsonObject | None]
    comparison: Mapped[JsonObject | None]
    """Ranking metric -> difference of the two records (`submissions.verification.MetricComparison`)."""
    identical: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether its logits equal those of the first record bit by bit: a deterministic rerun, or a copy."""
    note: Mapped[str | None]
    """Reason of a failure."""


class KnownAttack(Base):
    """What an attack with one budget finds in an entry, with the evidence of its author or of the board's runner."""

    __tablename__ = "known_attacks"
    __table_args__ = (
        CheckConstraint(_one_of("state", ATTACK_STATES), name="state"),
        Index("ix_known_attacks_entry_id", "entry_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"))
    token_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.id"))
    """None for a record of the runner."""
    author: Mapped[str]
    received_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(16))
    """``received`` before it is scored; ``claimed`` as its author found it; ``repeated`` by the board's runner;
    ``failed`` if it cannot be scored."""
    runner: Mapped[bool]
    """Whether it is the runner's record, which sets flags."""
    label: Mapped[str]
    """The attack with its budget and options."""
    flops: Mapped[float | None]
    """FLOPs of one attack, as the evidence says."""
    body_sha256: Mapped[str] = mapped_column(String(64))
    z: Mapped[float | None]
    """Its statistic in the band of the attacked oracles."""
    outside: Mapped[bool | None]
    """Whether it is outside the family band over all attacks that the runner repeated on this board."""
    recoverable: Mapped[bool | None]
    """Whether it finds what had been forgotten, and more than in oracles."""
    card: Mapped[JsonObject | None]
    """``score`` (`scoring.attacks.AttackScore`), ``scale`` (`scoring.attacks.AttackScale`), ``family_limit``, and
    ``attacks``, the number of attacks and budgets behind it."""
    note: Mapped[str | None]
    """Reason of a failure."""


class BoardRun(Base):
    """A run of an entry's method by the board's own runner, which verifies the entry; at most one per entry."""

    __tablename__ = "board_runs"
    __table_args__ = (CheckConstraint(_one_of("state", RUN_STATES), name="state"),)

    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    code: Mapped[JsonObject]
    """The method: source or name, class and hyper-parameters (`submissions.runs.SubmittedCode`)."""
    progress: Mapped[str] = mapped_column(default="")
    """What the runner does now, or ""."""
    reason: Mapped[str] = mapped_column(default="")
    """Why it failed, or ""."""
    runner: Mapped[str | None]
    """Name of the runner that took it last."""
    cost: Mapped[JsonObject | None]
    """What the runner measured (`verification.rerun.MeasuredCost`), with its ``cost_class``."""
    requested_at: Mapped[datetime]
    updated_at: Mapped[datetime | None]


class ScoringProcess(Base):
    """Heartbeat of a scoring worker or a runner, so that the site can warn when none is running."""

    __tablename__ = "scoring_processes"

    name: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(64))
    """Hash of its scoring code."""
    seen_at: Mapped[datetime]
    runs_methods: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it is a runner, which runs submitted methods and scores nothing."""


class SentNotice(Base):
    """An item of the moderation queue of which moderators were notified; deleted when it leaves the queue."""

    __tablename__ = "sent_notices"

    item: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Id of the entry, or "job" and the job's number."""
    sent_at: Mapped[datetime]


class RateCount(Base):
    """Counter of a rate limit that several web processes share."""

    __tablename__ = "rate_counts"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    count: Mapped[int]
    expires_at: Mapped[float]
    """Seconds since 1970."""


class IdempotencyKey(Base):
    """The first response to a request, which a repetition receives again."""

    __tablename__ = "idempotency_keys"

    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    entry_id: Mapped[str] = mapped_column(ForeignKey("entries.id"))
    created_at: Mapped[datetime]
