"""Notify moderators of new items of the moderation queue, by webhook and by e-mail."""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Sequence
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import httpx2
from sqlalchemy import delete, select

from forgetbench.leaderboard.db.models import SentNotice, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions.moderation import QueueItem, queue_items

log = logging.getLogger("forgetbench.worker")
TIMEOUT_SECONDS = 20.0


def notify(settings: Settings, database: Database) -> int:
    """Send one message about all items that are new in the moderation queue; returns their number.

    A message that cannot be sent is tried again at the next call. Does nothing where no notification is configured.
    """
    if settings.webhook_url is None and not settings.smtp_url:
        return 0
    with database.read_session() as session:
        items = {item.id: item for item in queue_items(session)}
        sent = set(session.scalars(select(SentNotice.item)))
    new = [item for item in items.values() if item.id not in sent]
    gone = sent - set(items)
    if new and not _send(settings, new):
        return 0
    if new or gone:
        with database.write_session() as session:
            session.execute(delete(SentNotice).where(SentNotice.item.in_(gone)))
            session.add_all([SentNotice(item=item.id, sent_at=utc_now()) for item in new])
    return len(new)


def _send(settings: Settings, items: Sequence[QueueItem]) -> bool:
    """Send a message by each way that is configured; whether one of them worked."""
    delivered = False
    for way, send in (("webhook", _post), ("e-mail", _mail)):
        try:
            delivered |= send(settings, items)
        except (OSError, httpx2.HTTPError, smtplib.SMTPException) as error:
            log.error("moderators could not be notified by %s: %s", way, error)  # noqa: TRY400 - no traceback: it may hold the address's secret
    return delivered


def _post(settings: Settings, items: Sequence[QueueItem]) -> bool:
    if settings.webhook_url is None:
        return False
    content = {"text": _text(settings, items), "items": [item._asdict() for item in items]}
    httpx2.post(str(settings.webhook_url), json=content, timeout=TIMEOUT_SECONDS).raise_for_status()
    return True


def _mail(settings: Settings, items: Sequence[QueueItem]) -> bool:
    if not settings.smtp_url or not settings.notify_email:
        return False
    address = urlsplit(settings.smtp_url)
    message = EmailMessage()
    message["Subject"] = f"{settings.site_title}: {len(items)} new in the moderation queue"
    message["From"] = settings.notify_from or settings.notify_email.partition(",")[0].strip()
    message["To"] = settings.notify_email
    message.set_content(_text(settings, items))
    encrypted = address.scheme == "smtps"
    connect = smtplib.SMTP_SSL if encrypted else smtplib.SMTP
    with connect(address.hostname or "", address.port or 0, timeout=TIMEOUT_SECONDS) as server:
        server.ehlo()
        if not encrypted and server.has_extn("starttls"):
            server.starttls()
        if address.username and address.password:
            server.login(unquote(address.username), unquote(address.password))
        server.send_message(message)
    return True


def _text(settings: Settings, items: Sequence[QueueItem]) -> str:
    base = str(settings.public_url or "").rstrip("/")
    lines = [f"{item.id} on {item.task}: {item.state}. {item.reason}" for item in items]
    where = f"{base}/moderate" if base else "`forgetbench admin queue`"
    return "\n".join(["New in the moderation queue:", *lines, f"Review them with {where}."])
