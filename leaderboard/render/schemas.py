"""The JSON shapes of the API's answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid")


class BandDocument(Document):
    """Where the oracles themselves fall."""

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
    """A place, and the places that its tie group spans."""

    position: int
    low: int
    high: int
    tie_group: int


class ValueDocument(Document):
    """A value with its 95 % interval, and z: its distance from the band's mean in oracle standard deviations."""

    value: float | None
    low: float | None
    high: float | None
    z: float | None
    note: str


class RowDocument(Document):
    """One entry on a board."""

    id: str
    label: str
    method: str
    family: str
    submitter: str
    tier: str
    state: str
    status: str | None
    reasons: list[str]
    flags: list[str]
    rank: RankDocument | None
    distance: float | None
    distance_low: float | None
    distance_high: float | None
    inside: bool | None
    cost: float | None
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


class BoardDocument(Document):
    """A board in one view: what its page shows."""

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
    informational: str
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


class SubmissionDocument(Document):
    """What became of a submission; ``waits`` says why it is not scored, where no scoring process runs."""

    id: str
    task: str
    label: str
    state: str
    tier: str
    note: str
    status: str | None
    reasons: list[str]
    flags: list[str]
    rank: RankDocument | None
    distance: float | None
    distance_low: float | None
    distance_high: float | None
    inside: bool | None
    ranked: int
    url: str
    waits: str
    history: list[EventDocument]


class DryRunDocument(Document):
    """The answer to a dry run: the server would take it."""

    task: str
    accepted: bool
    detail: str


class EntryDocument(Document):
    """An entry, whole; ``outdated``: other code scored it than this server's, `software` says which."""

    row: RowDocument
    task: str
    pack: str
    scorecard: dict[str, Any] | None
    software: dict[str, Any] | None
    outdated: bool
    manifest: dict[str, Any]
    manifest_sha256: str
    files: list[dict[str, Any]]
    verifications: list[VerificationDocument]
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
    verdict: str
    note: str | None
    identical: bool
    comparison: dict[str, MetricDifferenceDocument] | None


class VerificationReceived(Document):
    """A second record that is being scored."""

    id: str
    entry: str


class MethodDocument(Document):
    """A method over all boards."""

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


class Health(Document):
    """Whether the server runs, and whether anything scores: ok, or since when nothing does and how much waits."""

    status: str
    scoring: str | None = None
