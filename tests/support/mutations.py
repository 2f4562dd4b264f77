"""Seeded damage to the bytes of a file, for fuzz tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

Mutator = Callable[[bytes, np.random.Generator], bytes]
"""Returns a damaged copy of some bytes; the same generator state gives the same damage."""

TEXTS = (
    b"",
    b"\n",
    b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n",
    b'{"error": "access denied"}\n',
    b"Traceback (most recent call last):\n  File ...\n",
    b"\xef\xbb\xbfpath,label\n",
    "naïve café ½ 漢字\n".encode("utf-16"),
    "naïve café ½\n".encode("latin-1"),
    b"\x00" * 64,
    b"\xff" * 64,
    b"PK\x03\x04",
    b"\x80\x02}q\x00.",
)
"""What people have instead of the file they meant: pages, pointers, messages, other encodings."""

FOREIGN = (
    b"\x00",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"nan",
    b"\r",
    b"\n\n",
    b'"',
    b",",
    b"\xe2\x80\xae",
    b"1e999",
)
"""Pieces that are inserted into a file: values and marks that parsers stumble over."""


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off the end at a random position; often close to the start or the end, where headers are."""
    if not content:
        return content
    reach = min(len(content), int(rng.choice([16, 128, len(content)])))
    cut = int(rng.integers(0, reach))
    return content[:cut] if rng.random() < 0.5 else content[: len(content) - cut]


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip 1 to 32 random bits; half of the time only among the first 256 bytes, where headers are."""
    if not content:
        return content
    data = bytearray(content)
    reach = min(len(data), 256) if rng.random() < 0.5 else len(data)
    for bit in rng.integers(0, 8 * reach, int(rng.integers(1, 33))).tolist():
        data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def swap_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Reverse the order of the bytes in pairs or fours over a random stretch, as another byte order does."""
    width = int(rng.choice([2, 4]))
    start, stop = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    stretch = content[start : start + (stop - start) // width * width]
    swapped = np.frombuffer(stretch, np.uint8).reshape(-1, width)[:, ::-1].tobytes()
    return content[:start] + swapped + content[start + len(stretch) :]


def huge_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite 2, 4 or 8 bytes among the first 512 by the largest values, as sizes that no file has."""
    if len(content) < 2:
        return content
    width = int(rng.choice([2, 4, 8]))
    at = int(rng.integers(0, min(len(content), 512)))
    value = [b"\xff" * width, b"\x7f" + b"\xff" * (width - 1), b"\xff" * (width - 1) + b"\x7f"][int(rng.integers(3))]
    return content[:at] + value + content[at + width :]


def splice(content: bytes, rng: np.random.Generator) -> bytes:
    """Copy one random stretch of the content over, or into, another place."""
    if not content:
        return content
    start, stop = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    at = int(rng.integers(0, len(content) + 1))
    stretch = content[start:stop]
    rest = content[at:] if rng.random() < 0.5 else content[at + len(stretch) :]
    return content[:at] + stretch + rest


def insert(content: bytes, rng: np.random.Generator) -> bytes:
    """Insert one of the foreign pieces at a random position."""
    at = int(rng.integers(0, len(content) + 1))
    return content[:at] + FOREIGN[int(rng.integers(len(FOREIGN)))] + content[at:]


def extend(content: bytes, rng: np.random.Generator) -> bytes:
    """Append random bytes, the content itself, or a text."""
    tails = (rng.bytes(int(rng.integers(1, 512))), content, TEXTS[int(rng.integers(len(TEXTS)))])
    return content + tails[int(rng.integers(len(tails)))]


def replace_with_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Return one of the texts that people have instead of the file."""
    return TEXTS[int(rng.integers(len(TEXTS)))]


def change_encoding(content: bytes, rng: np.random.Generator) -> bytes:
    """Encode text in UTF-8 as UTF-8 with a byte order mark, UTF-16, or Latin-1; other bytes gain a byte order mark."""
    encoding = str(rng.choice(["utf-8-sig", "utf-16", "utf-16-be", "latin-1"]))
    try:
        return content.decode("utf-8").encode(encoding, errors="replace")
    except UnicodeDecodeError:
        return b"\xef\xbb\xbf" + content


MUTATORS: Mapping[str, Mutator] = {
    "truncate": truncate,
    "flip_bits": flip_bits,
    "swap_bytes": swap_bytes,
    "huge_header": huge_header,
    "splice": splice,
    "insert": insert,
    "extend": extend,
    "replace_with_text": replace_with_text,
    "change_encoding": change_encoding,
}
"""Name -> mutator, in the order in which `mutate` draws them."""


def mutate(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Damage bytes with one to three random mutators.

    Args:
        content: The intact file.
        rng: Source of the randomness.

    Returns:
        The names of the mutators, for messages of tests, and the damaged bytes.
    """
    names = rng.choice(list(MUTATORS), int(rng.choice([1, 1, 2, 3]))).tolist()
    for name in names:
        content = MUTATORS[name](content, rng)
    return "+".join(names), content


FIX = re.compile(
    r"\b(Accepted|Add|Assign|Check|Compare|Convert|Copy|Correct|Did you mean|Download|Expected|Fix|Get|Give|Keep|List"
    r"|Make|Move|Name|Put|Read|Reduce|Remove|Rename|Restore|Run|Save|See|Set|Use|Write|decompress|unpack|copy it"
    r"|download it|add it|remove|rename|save them|Available|should be|must (be|contain))\b|`"
)
"""Words by which a message tells how to fix it."""
RAW = re.compile(r"Error\(|object at 0x|\[Errno|\bcodec can't|NoneType|<class '|literal for int|should match pattern")
"""What only messages of libraries contain."""


def assert_explains(message: str, *names: str) -> None:
    """Assert that an error message names a file and a fix, and is not only the text of a library.

    Args:
        message: The message.
        names: Names of files; at least one of them must be in the message.
    """
    assert any(name in message for name in names), f"names none of {names}: {message}"
    assert FIX.search(message), f"has no fix: {message}"
    assert not RAW.search(message), f"has the text of a library: {message}"
    message.encode()  # no lone surrogates, on which printing would fail
