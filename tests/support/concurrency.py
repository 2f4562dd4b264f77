"""Wait for conditions and run calls in threads, without depending on the speed of the machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LIMIT = 300.0
"""Seconds after which a test that waits for an event fails; far more than a loaded machine needs."""


def wait_until(condition: Callable[[], object], what: str = "the condition", limit: float = LIMIT) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not hold within {limit:.0f} s"
        time.sleep(0.05)


class BackgroundCall:
    """A call in a thread, with its result or exception."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.result: object = None
        self.error: Exception | None = None

        def run() -> None:
            try:
                self.result = function(*arguments)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def give_time(self, seconds: float = 1.0) -> None:
        """Let the call run for a while; it may still be blocked afterwards."""
        self._thread.join(seconds)

    def wait(self) -> None:
        """Wait for the end of the call."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "the call did not end"
