"""Messages between the runner and a method's process: a JSON header and raw bytes, with limits on both.

Nothing is unpickled. A message is the magic bytes, the length of the header, the length of the payload, the header
(JSON, an object) and the payload (safetensors). Both sides use it, so this file imports nothing but the standard
library.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

MAGIC = b"FBV1"
MAX_HEADER = 2**20
"""Largest header in bytes."""
_LENGTHS = struct.Struct(">IQ")
_CHUNK = 2**20


class ChannelError(Exception):
    """What arrived is no message, or is larger than allowed."""


class Message(NamedTuple):
    """One message."""

    header: dict[str, Any]
    payload: bytes


def write_message(stream: BinaryIO, header: Mapping[str, Any], payload: bytes = b"") -> None:
    """Write a message.

    Raises:
        OSError: The other side is gone.
    """
    text = json.dumps(header, allow_nan=False).encode()
    stream.write(MAGIC + _LENGTHS.pack(len(text), len(payload)))
    stream.write(text)
    stream.write(payload)
    stream.flush()


def read_message(stream: BinaryIO, max_payload: int) -> Message | None:
    """Read a message; None at the end of the stream.

    Args:
        stream: Where to read.
        max_payload: Largest payload in bytes; a larger one is refused before it is read.

    Raises:
        ChannelError: It is no message, is too large, or ends early.
    """
    start = _read(stream, len(MAGIC) + _LENGTHS.size)
    if not start:
        return None
    if len(start) < len(MAGIC) + _LENGTHS.size or not start.startswith(MAGIC):
        raise ChannelError(f"it wrote {start[:12]!r} where a message must begin")
    header_size, payload_size = _LENGTHS.unpack(start[len(MAGIC) :])
    if header_size > MAX_HEADER:
        raise ChannelError(f"its message has a header of {header_size} bytes; at most {MAX_HEADER} are allowed")
    if payload_size > max_payload:
        raise ChannelError(f"its message has {payload_size} bytes; at most {max_payload} are allowed")
    text, payload = _read(stream, header_size), _read(stream, payload_size)
    if len(text) < header_size or len(payload) < payload_size:
        raise ChannelError("its message ended early")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChannelError("the header of its message is not JSON") from error
    if not isinstance(header, dict):
        raise ChannelError("the header of its message is not a JSON object")
    return Message(header, payload)


def _read(stream: BinaryIO, size: int) -> bytes:
    """Read up to ``size`` bytes; fewer only at the end of the stream."""
    parts: list[bytes] = []
    while size:
        part = stream.read(min(size, _CHUNK))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
