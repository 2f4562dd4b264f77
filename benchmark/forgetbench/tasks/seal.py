"""Seals: the secret from which a board's hidden seeds derive, so that its oracles cannot be trained elsewhere.

A server has one salt. Each board has in each round a salt of its own, derived from it, so that publishing the salt of
one round reveals nothing of other boards and rounds.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from forgetbench.errors import UsageError
from forgetbench.store import canonical_json

SALT = re.compile(r"[0-9a-f]{64}")
"""Form of a salt: 256 bits in hexadecimal digits."""
Draws = Literal["public", "sealed"]
"""The draws of a sealed board: ``public``, on which submitters run, and ``sealed``, which only its runner sees."""
ORACLE_STREAMS = ("reference", "control", "partial", "third")
"""First words of the streams of random numbers that train oracles."""


class Seal(BaseModel):
    """The salt of a board's round, and the draws whose seeds derive from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    salt: str = Field(pattern=SALT.pattern, repr=False)
    """The salt of the board's round, in hexadecimal digits."""
    draws: Draws
    """On ``public`` draws only the oracles' seeds are secret; on ``sealed`` draws all seeds are."""

    @property
    def fingerprint(self) -> str:
        """First digits of a hash of the salt, which identify it and do not reveal it."""
        return hashlib.sha256(f"forgetbench seal {self.salt}".encode()).hexdigest()[:12]

    def covers(self, stream: str) -> bool:
        """Whether the seeds of a stream of random numbers derive from the salt."""
        return self.draws == "sealed" or stream.partition("-")[0] in ORACLE_STREAMS

    def seed(self, stream: str, *indices: int) -> int:
        """The seed of a stream of random numbers (63 bits): HMAC-SHA256 of draws, stream and indices."""
        return int(_hmac(self.salt, [self.draws, stream, *indices])[:16], 16) >> 1


def board_salt(server_salt: str, task_key: str, number: int) -> str:
    """The salt of a board in a round: HMAC-SHA256 of the task's key and the round's number.

    Args:
        server_salt: The server's salt.
        task_key: The task's key, without a seal.
        number: Number of the round, from 1.
    """
    return _hmac(server_salt, ["board", task_key, number])


def parse_salt(text: str) -> str:
    """A salt as a person gives it.

    Raises:
        UsageError: It is not 64 hexadecimal digits.
    """
    salt = text.strip().lower()
    if not SALT.fullmatch(salt):
        raise UsageError(
            "A salt has 64 hexadecimal digits, as the page of a retired round shows it. Copy it from there."
        )
    return salt


def _hmac(key: str, message: list[str | int]) -> str:
    return hmac.new(bytes.fromhex(key), canonical_json(message), hashlib.sha256).hexdigest()
