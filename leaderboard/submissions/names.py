"""Names of submissions: lookalikes of reserved names are refused, and rows show whose method they are."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from forgetbench.errors import UsageError
from forgetbench.evidence.run import Manifest
from forgetbench.fingerprints import recorded_method, registered_source
from forgetbench.leaderboard.db.runs import ShownMethod
from forgetbench.leaderboard.errors import FieldError
from forgetbench.methods import check_own_name, methods
from forgetbench.scoring.vocabulary import PARTIAL

REFERENCE_ROWS = ("retrain", "Retrain", "none", "No unlearning", PARTIAL)
"""Names of the server's own rows (`reference.BASELINES`)."""
_LOOKALIKES = str.maketrans(
    {
        **dict(zip("аекмнорстухіјѕһԁԛԝвґ", "aekmhopctyxijshdqwbr", strict=True)),  # Cyrillic
        **dict(zip("αβεικνορτυχγωζη", "abeiknoptuxywzn", strict=True)),  # Greek
        **dict(zip("օոսհցԼ", "onuhgl", strict=True)),  # Armenian
        **dict(zip("ıɡɑɩʟꜱʀᴇɴᴛᴀᴄᴅᴏᴜłđø", "igailsrentacdouldo", strict=True)),  # other Latin
        **dict(zip("015|$", "olsls", strict=True)),
    }
)
"""Letters and digits -> the Latin letter that they look like, after case folding."""


def skeleton(name: str) -> str:
    """What a name looks like: Latin letters and +, without case, accents, separators and small differences."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    letters = "".join(sign for sign in folded.translate(_LOOKALIKES) if sign.isalnum() or sign == "+")
    return letters.replace("i", "l").replace("rn", "m").replace("vv", "w")


@lru_cache(maxsize=1)
def _reserved() -> dict[str, str]:
    """Skeleton -> the reserved name."""
    return {skeleton(name): name for name in (*methods.names(), *REFERENCE_ROWS)}


_ROWS = {name.casefold() for name in REFERENCE_ROWS}


def check_names(manifest: Manifest) -> list[FieldError]:
    """Refuse names of the server's own rows, lookalikes of reserved names, and names that show another method.

    A method may have the name of a method of this package: its row is then shown with its submitter, unless it is that
    method. Models that other code made may not.
    """
    method = manifest.method
    errors = [
        FieldError(field=field, message=message)
        for field, text in _shown_texts(manifest)
        if (message := _describe_name(text, method.name))
    ]
    if method.observed and not errors:
        try:
            check_own_name(method.name)
        except UsageError as error:
            errors.append(FieldError(field="method.name", message=str(error)))
    return errors


def _shown_texts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The texts that a board shows as the name of a row: fields and values."""
    yield "method.name", manifest.method.name
    label, colon, _ = manifest.method.label.partition(":")
    yield "method.label", label
    if colon:
        yield "method.label", manifest.method.label


def _describe_name(text: str, own: str) -> str:
    """Why a name cannot be shown; "" if it can."""
    if "\n" in text or "\r" in text or "\t" in text or "\f" in text:
        return "contains a line break or a tab; write it in one line"
    name = " ".join(text.split())
    if name.casefold() in _ROWS:
        return f"{name!r} is the name of a reference row: choose another"
    reserved = _reserved().get(skeleton(name)) if name else None
    if reserved is None or name == reserved == own:
        return ""
    if name == reserved:
        return f"is the name of the method {reserved!r}, but the method is called {own!r}"
    return f"{name!r} looks like the reserved name {reserved!r}: choose another"


def shown_method(manifest: Manifest, submitter: str) -> ShownMethod:
    """What boards show of a submission's method.

    ``ssd`` is the method of this package only if the fingerprint is this server's, without a source; everything else of
    that name is shown as ``ssd (submitter)``. A source that is the file of a method of this package is named as such.

    Args:
        manifest: The submission's manifest.
        submitter: Its submitter.
    """
    method, label = manifest.method, manifest.row[:120].strip() or "unnamed"
    if method.source is not None and (original := registered_source(method.fingerprint)) is not None:
        return ShownMethod(f"{method.name} ({submitter})", f"{label} (is ForgetBench's {original})", registered=False)
    if method.name not in methods:
        return ShownMethod(method.name, label, registered=False)
    if method.source is None and not method.observed and method.fingerprint == recorded_method(method.name):
        return ShownMethod(method.name, label, registered=True)
    name = f"{method.name} ({submitter})"
    return ShownMethod(name, name + label.removeprefix(method.name), registered=False)
