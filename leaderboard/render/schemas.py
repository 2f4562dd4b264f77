"""Documents of the API: the shapes of its JSON responses."""

from __future__ import annotations

from datetime import datetime

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from forgetbench.store import JsonObject


class Document(BaseModel):
    """Base of all documents; they are also read from attributes of database rows."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)


class BandDocument(Document):
    """The range in which oracles fall when compared with each other."""

    mean: float
    low: float
    high: float
    sd: float


class ColumnDocument(Document):
    """A metric on a board."""

    name: str
    title: str
    unit: str
    direction: str
    meaning: str
    role: str | None
    ranks: bool
    why: str
    band: BandDocument | None


class RankDocument(Document):
    """Rank by distance in the ranking ``scope``, and the rank interval.

    The interval is between the rows that are found better and those found worse.

    ``ranked`` is that of verified and reference rows; claimed rows have places among themselves only.
    """

    scope: str
    position: int
    low: int
    high: int


class ValueDocument(Document):
    """A value with its 95 % interval, and z: its distance from the band's mean in oracle standard deviations."""

    value: float | None
    low: float | None
    high: float | None
    z: float | None
    note: str


class RowDocument(Document):
    """One entry on a board.

    ``verdict``: what it achieves in words; ``forgotten``: share of the way to retraining; ``harm``: accuracy lost
    beyond retraining's, as a share. Each is null where it cannot be computed.
    """

    id: str
    tier: str
    label: str
    method: str
    family: str
    submitter: str
    baseline: bool
    reproductions: int
    state: str
    status: str | None
    reasons: list[str]
    flags: list[str]
    rank: RankDocument | None
    distance: float | None
    distance_low: float | None
    distance_high: float | None
    within_band: bool | None
    verdict: str | None = None
    forgotten: float | None = None
    forgotten_low: float | None = None
    forgotten_high: float | None = None
    harm: float | None = None
    harm_low: float | None = None
    harm_high: float | None = None
    cost: float | None
    cost_class: str | None
    needs_retain: bool
    received_at: datetime
    values: dict[str, ValueDocument]


class BoardBrief(Document):
    """A board in a list."""

    task: str
    title: str
    track: str
    scenario: str
    protocol: int
    pack: str
    seeds: int
    draws: int
    ranked: bool
    informational: str
    entries: int
    superseded: bool
    sealed: bool
    retired: bool


class BoardDocument(Document):
    """One page of a view of a board.

    ``claimed_limit`` is the family limit of claimed rows, which a sealed board compares with other oracles. ``salt`` is
    that of a retired round.
    """

    task: str
    title: str
    track: str
    scenario: str
    protocol: int
    pack: str
    task_key: str
    seeds: int
    draws: int
    revision: int
    ranking: list[str]
    family_limit: float | None
    claimed_limit: float | None
    informational: str
    sealed: bool
    round: int | None
    salt: str | None
    tiers: str
    columns: list[ColumnDocument]
    references: list[RowDocument]
    rows: list[RowDocument]
    total: int
    next: str | None


class EventDocument(Document):
    """One change of an entry's state."""

    at: datetime
    actor: str
    before: str | None
    after: str
    reason: str


class RunDocument(Document):
    """A run of a submission's method by the board's own runner, which verifies it.

    ``state`` is waiting, running, done or failed; ``place`` is the position in the queue, from 1, while it waits;
    ``waits`` says why nothing happens if no runner runs; ``cost`` is what the runner measured.
    """

    state: str
    place: int | None
    progress: str
    reason: str
    waits: str
    cost_class: str | None
    cost: JsonObject | None


class SubmissionDocument(Document):
    """State of a submission; ``waits`` says why it is not scored if no worker runs.

    ``run`` is what the board's own runner does with its method; null if it cannot be run.
    """

    id: str
    task: str
    tier: str
    label: str
    state: str
    note: str
    status: str | None
    reasons: list[str]
    flags: list[str]
    rank: RankDocument | None
    distance: float | None
    distance_low: float | None
    distance_high: float | None
    within_band: bool | None
    verdict: str | None = None
    ranked: int
    url: str
    waits: str
    run: RunDocument | None = None
    history: list[EventDocument]


class DryRunDocument(Document):
    """Response to a dry run that found no errors."""

    task: str
    accepted: bool
    detail: str


class EvidenceFileDocument(Document):
    """An evidence file of an entry."""

    name: str
    sha256: str
    size: int


class EntryDocument(Document):
    """An entry; ``outdated``: its scores come from other code than the server's present code, see ``software``.

    ``scorecard`` has the scores that rank; of an entry ranked on sealed draws, ``public_scorecard`` has those on public
    draws, which anybody can repeat.
    """

    row: RowDocument
    task: str
    pack: str
    scorecard: JsonObject | None
    public_scorecard: JsonObject | None
    software: JsonObject | None
    outdated: bool
    manifest: JsonObject
    manifest_sha256: str
    files: list[EvidenceFileDocument]
    verifications: list[VerificationDocument]
    attacks: list[AttackDocument] = []
    history: list[EventDocument]


class MetricDifferenceDocument(Document):
    """Difference of a ranking metric between two records, with its 95 % interval; ``agrees``: it contains 0."""

    value: float | None
    low: float | None
    high: float | None
    agrees: bool | None


class VerificationDocument(Document):
    """A second record of an entry; ``identical``: its logits equal those of the first record bit by bit."""

    id: str
    verifier: str
    received_at: datetime
    outcome: str = Field(validation_alias=AliasChoices("outcome", "verdict"))
    note: str | None
    identical: bool
    comparison: dict[str, MetricDifferenceDocument] | None


class VerificationReceived(Document):
    """A second record that is being scored."""

    id: str
    entry: str


class AttackReceived(Document):
    """The evidence of an attack that is being scored."""

    id: str
    entry: str


class AttackDocument(Document):
    """What an attack with one budget finds in an entry.

    ``state`` is ``claimed`` for evidence of anybody, and ``repeated`` for that of the board's runner, which alone sets
    flags. ``z`` is its statistic in the band of the attacked oracles, ``outside`` whether it is outside the family band
    over all attacks that the runner repeated on this board.
    """

    id: str
    label: str
    state: str
    author: str
    received_at: datetime
    flops: float | None
    z: float | None
    outside: bool | None
    recoverable: bool | None
    card: JsonObject | None
    note: str | None


class MethodDocument(Document):
    """A method on all boards."""

    name: str
    family: str
    entries: int
    boards: int
    newest: datetime | None


class MetricDocument(Document):
    """A metric: what it is, how to read it, what it misses."""

    name: str
    title: str
    symbol: str
    group: str
    unit: str
    direction: str
    requires: list[str]
    meaning: str
    misses: str
    misuse: str
    formula: str
    example: str
    source: str


class TokenDocument(Document):
    """The token of a request."""

    name: str
    scopes: list[str]
    expires_at: datetime | None
    license: str = ""
    """License of listed entries, to which submitters agree."""


class QueueItemDocument(Document):
    """An item of the moderation queue: an entry by its id, or a failed job ("job" and its number)."""

    id: str
    task: str
    label: str
    submitter: str
    state: str
    reason: str


class SignUp(Document):
    """A request for a token with an invitation code; ``team`` only if the invitation is not for a team."""

    code: str = Field(max_length=100)
    name: str = Field(max_length=100)
    team: str = Field(default="", max_length=100)


class NewTokenDocument(Document):
    """A new token, which is shown once."""

    token: str


class Health(Document):
    """Whether the server runs, and whether anything scores: ok, or since when nothing does and how much waits."""

    status: str
    scoring: str | None = None
