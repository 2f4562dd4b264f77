"""Messages between the runner and a method's process."""

from __future__ import annotations

import io
import pickle
import struct

import pytest

from forgetbench.verification.channel import MAGIC, MAX_HEADER, ChannelError, read_message, write_message


def written(header, payload=b""):
    """A message as bytes."""
    stream = io.BytesIO()
    write_message(stream, header, payload)
    return stream.getvalue()


def test_message_read_back_equals_what_was_written():
    stream = io.BytesIO(written({"kind": "ask"}) + written({"kind": "result", "seconds": 1.5}, b"\x00weights"))
    assert read_message(stream, 0) == ({"kind": "ask"}, b"")
    assert read_message(stream, 8) == ({"kind": "result", "seconds": 1.5}, b"\x00weights")
    assert read_message(stream, 8) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pickle.dumps({"kind": "result"}), "where a message must begin"),
        (written({"kind": "result"}, b"123456789"), "has 9 bytes; at most 8 are allowed"),
        (MAGIC + struct.pack(">IQ", MAX_HEADER + 1, 0), f"a header of {MAX_HEADER + 1} bytes"),
        (written({"kind": "result"}, b"1234")[:-1], "ended early"),
        (MAGIC + struct.pack(">IQ", 4, 0) + b"nope", "is not JSON"),
        (MAGIC + struct.pack(">IQ", 2, 0) + b"[]", "is not a JSON object"),
        (MAGIC + struct.pack(">IQ", 100_000, 0) + b"[" * 100_000, "is not JSON"),
    ],
)
def test_read_message_of_anything_else_is_refused(data, words):
    with pytest.raises(ChannelError, match=words):
        read_message(io.BytesIO(data), 8)
