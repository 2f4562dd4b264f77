"""What the artifacts of a store contain, apart from what differs between machines and engines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from forgetbench.runner.artifacts import META
from forgetbench.store import CARD, Store, file_digest

OF_THE_MACHINE = frozenset({"seconds", "peak_memory", "hardware", "exclusive"})
"""Metadata that says where and how fast an artifact was made."""


def keys_of(store: Store) -> list[str]:
    """The keys of all artifacts of tasks in a folder."""
    return sorted(folder.name for folder, key in store.artifacts() if "task" in key)


def contents(store: Store, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Key -> name of a file -> its SHA-256, or the metadata without what belongs to the machine; {} if it is absent."""
    return {key: _contents(store.read(key)) for key in keys}


def _contents(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    found: dict[str, Any] = {path.name: file_digest(path) for path in folder.iterdir() if path.name not in (CARD, META)}
    if (folder / META).is_file():
        meta = json.loads((folder / META).read_bytes())
        found[META] = {name: value for name, value in meta.items() if name not in OF_THE_MACHINE}
    return found
