"""The API against its own OpenAPI document."""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

pytestmark = pytest.mark.filterwarnings("ignore")


@schemathesis.serializer("application/zip")
def as_it_is(_context, value):
    return value if isinstance(value, bytes) else b"no zip"


schemathesis.openapi.media_type("application/zip", st.binary())


@pytest.fixture
def unlimited(full_site):
    limits = full_site.client.app.state.limits
    fast = full_site.settings.model_copy(update={"reads_per_minute": 10**9, "writes_per_minute": 10**9})
    limits.__init__(fast, full_site.database)
    return full_site


def test_every_operation_conforms_to_its_schema(unlimited):
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", unlimited.client.app)
    headers = unlimited.token("submit", "verify", "moderate")
    names = []
    for result in schema.get_all_operations():
        operation = result.ok()
        names.append(operation.label)

        @settings(max_examples=12, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=operation.as_strategy())
        def check(case):
            # reads need no token; and the schema cannot say which zip is a run, or which columns a board has
            case.call_and_validate(headers=headers, excluded_checks=[ignored_auth, positive_data_acceptance])

        check()
    assert len(names) == 20, names


def test_every_operation_and_field_is_described(full):
    document = full.client.get("/api/v1/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), (method, path)
            for parameter in operation.get("parameters", []):
                assert parameter["schema"], (method, path, parameter["name"])
