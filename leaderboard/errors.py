"""Errors of the leaderboard as RFC 9457 problem documents; independent of the web framework."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

MEDIA_TYPE = "application/problem+json"
IN_YOUR_ENTRY = "urn:forgetbench:problem:in-your-entry"
"""Type of the refusal of evidence that is in an entry of the same submitter already."""

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of the operating system that say that a disk, or a quota of it, is full."""


class FieldError(BaseModel):
    """One invalid field, file or parameter."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    field: str
    """Location: a field of the manifest, an evidence file, or a parameter."""
    message: str
    """What is wrong, and how to fix it."""


class ProblemDocument(BaseModel):
    """Error response (RFC 9457); every error of the API has this shape."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str = "about:blank"
    """URI of the problem type, for programs; most problems are of no type but their status."""
    title: str
    """Phrase of the HTTP status."""
    status: int
    """HTTP status."""
    detail: str
    """What happened, and what to do."""
    errors: list[FieldError] = []
    """All invalid fields."""


class Link(NamedTuple):
    """Link that an error page offers."""

    text: str
    """Text of the link."""
    address: str
    """Path on this site."""


class Problem(Exception):  # noqa: N818 - the term of RFC 9457
    """Error with an HTTP status; raised anywhere below a route, turned into the response by `web.errors`."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        links: Sequence[Link] = (),
        kind: str = "about:blank",
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status, self.detail, self.errors = status, detail, list(errors)
        self.headers, self.links = dict(headers or {}), list(links)

    def document(self) -> ProblemDocument:
        """The problem as an RFC 9457 document."""
        title = HTTPStatus(self.status).phrase
        return ProblemDocument(type=self.kind, title=title, status=self.status, detail=self.detail, errors=self.errors)
