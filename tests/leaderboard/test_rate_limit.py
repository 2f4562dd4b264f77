"""Rate limits per address and token, in memory and in the database."""

from __future__ import annotations

import time

import pytest
from fastapi.testclient import TestClient
from limits import RateLimitItemPerMinute
from limits.strategies import FixedWindowRateLimiter

from forgetbench.leaderboard.auth.rate_limit import DatabaseStorage, RateLimits
from forgetbench.leaderboard.web.app import create_app


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch):
    """Stop the clock of the limits, so that a slow machine does not reach the next minute."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)


def test_requests_beyond_the_limit_get_429_with_retry_after(site):
    settings = site.settings.model_copy(update={"reads_per_minute": 3, "writes_per_minute": 2})
    limits = site.client.app.state.limits
    assert isinstance(limits, RateLimits)
    limits.__init__(settings, site.database)
    headers = site.token()
    assert [site.post(b"", headers).status_code for _ in range(3)] == [400, 400, 429]
    limits.__init__(settings, site.database)
    answers = [site.client.get("/") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 61
    assert site.client.get("/health").status_code == 200


def test_database_storage_counts_like_memory(site):
    storage = DatabaseStorage(site.database)
    limiter, item = FixedWindowRateLimiter(storage), RateLimitItemPerMinute(2)
    assert [limiter.hit(item, client) for client in ("a", "a", "a", "b")] == [True, True, False, True]
    assert storage.check()
    storage.reset()
    assert limiter.hit(item, "a")


def test_token_is_counted_across_addresses(site):
    headers = site.token()
    statuses = []
    with TestClient(create_app(site.settings.model_copy(update={"reads_per_minute": 3}))) as client:
        for number in range(5):
            client._transport.client = (f"10.0.0.{number}", 1)
            statuses.append(client.get("/api/v1/whoami", headers=headers).status_code)
        client._transport.client = ("10.0.0.9", 1)
        assert client.get("/api/v1/whoami", headers=site.token(name="Other")).status_code == 200
    assert statuses == [200, 200, 200, 429, 429]
