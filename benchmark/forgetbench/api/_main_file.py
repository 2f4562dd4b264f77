"""Keeps worker processes from running the script that started them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_main_file() -> Iterator[None]:
    """Keep worker processes from importing the main script.

    Spawned processes import the script that started them, which would run a script without an
    ``if __name__ == "__main__"`` guard once more in each of them. No job refers to anything in that module.
    """
    main = sys.modules["__main__"]
    saved = dict(vars(main))
    vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update({name: saved[name] for name in ("__file__", "__spec__") if name in saved})
