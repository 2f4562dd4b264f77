"""From a manifest to the row of an entry."""

from __future__ import annotations

from forgetbench.evidence import Manifest
from forgetbench.leaderboard.models import Board, Entry, Token, utc_now
from forgetbench.leaderboard.states import new_id

REFERENCE_SUBMITTER = "ForgetBench"


def new_entry(board: Board, manifest: Manifest, manifest_sha256: str, token: Token | None) -> Entry:
    """The row of a submission that has just been received; without a token it is the server's own reference row."""
    submitter = token.name if token else REFERENCE_SUBMITTER
    label = label_of(manifest)
    method = manifest.method
    return Entry(
        id=new_id(),
        board_id=board.id,
        token_id=token.id if token else None,
        submitter=submitter,
        state="received",
        tier="recomputed" if token else "reference",
        received_at=utc_now(),
        method=method.name,
        label=label,
        family=method.family,
        needs_retain="retain" in method.needs,
        changes_training=method.changes_training,
        sentinel=method.sentinel,
        search_text=" ".join([label, method.name, method.title, method.family, submitter]).casefold(),
        manifest=manifest.model_dump(mode="json"),
        manifest_sha256=manifest_sha256,
    )


def label_of(manifest: Manifest) -> str:
    """The name of a row, at most 120 characters."""
    return manifest.row[:120].strip() or "unnamed"
