"""E-mail: every state of a request as a message of one thread, plain and HTML, with a link to the page."""

from __future__ import annotations

import logging
import smtplib
from datetime import datetime
from email.headerregistry import HeaderRegistry, MessageIDHeader
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from hashlib import sha256
from html import escape
from urllib.parse import urlsplit

from airflow_approvals.channels.connections import connection_of, with_connections
from airflow_approvals.channels.outbox import SendError
from airflow_approvals.channels.telling import Message, plain_text
from airflow_approvals.core.errors import ConfigurationError
from airflow_approvals.core.policy_channels import ChannelSettings, EmailChannel

KIND = "email"
TIMEOUT = 10
"""Seconds for each answer of the mail server, and no second try: the outbox tries again, and others wait."""

log = logging.getLogger(__name__)

_COLORS = {"asks": "#1d4ed8", "good": "#166534", "bad": "#991b1b", "plain": "#1f2937"}
_FONT = "font-family:system-ui,sans-serif;font-size:14px;color:#1f2937"


def post_mail(settings: ChannelSettings, message: Message, *, now: datetime) -> None:
    """Send one mail to all addresses of the channel."""
    if not isinstance(settings, EmailChannel):
        raise SendError(f"the channel is of kind {settings.kind} now", refused=True)
    from airflow.providers.common.compat.sdk import AirflowException
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    class Brief(SmtpHook):
        @property
        def timeout(self) -> int:
            return min(super().timeout, TIMEOUT)

        def _build_client(self) -> smtplib.SMTP:
            try:
                return super()._build_client()
            except smtplib.SMTPServerDisconnected as error:  # for the hook a reason to try again at once
                raise _send_error(error) from error

    connection_of(settings.conn_id)
    try:
        with with_connections(Brief(smtp_conn_id=settings.conn_id)) as hook:
            sender = hook.from_email
            if not sender:
                raise ConfigurationError(f"connection {settings.conn_id}: its extra names no from_email")
            mail = mail_of(message, sender=sender, to=settings.to, now=now)
            client = hook._smtp_client  # noqa: SLF001  # the hook's own sending knows no plain part
            if not isinstance(client, smtplib.SMTP):
                raise SendError("the mail server hung up")
            refused = client.send_message(mail, from_addr=sender, to_addrs=list(settings.to))
            if refused:  # sent again it would come to the others twice
                log.warning(
                    "connection %s: the mail server refuses %d of %d addresses; correct the policy file",
                    settings.conn_id,
                    len(refused),
                    len(settings.to),
                )
    except (smtplib.SMTPException, OSError, AirflowException) as error:
        raise _send_error(error) from error


def mail_of(message: Message, *, sender: str, to: tuple[str, ...], now: datetime) -> EmailMessage:
    """Return the mail. Sent twice it has the same Message-ID, so that it is shown once."""
    mail = EmailMessage(policy=_policy())
    mail["Subject"] = message.title
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Date"] = format_datetime(now)
    host = urlsplit(message.link).hostname or "localhost"
    first = f"<{message.request.id}@{host}>"
    if message.is_first:
        mail["Message-ID"] = first
    else:
        mail["Message-ID"] = f"<{message.request.id}.{_told(message)}@{host}>"
        mail["In-Reply-To"] = first
        mail["References"] = first
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office replies
    mail.set_content(plain_text(message))
    mail.add_alternative(_html(message), subtype="html")
    return mail


def _policy() -> EmailPolicy[EmailMessage]:
    # Python takes a long reference for words and encodes it (RFC 2047): no program would find the thread.
    headers = HeaderRegistry()
    for name in ("in-reply-to", "references"):
        headers.map_to_type(name, MessageIDHeader)  # type: ignore[arg-type]  # a mixin, as all of them are
    return EmailPolicy(header_factory=headers)


def _told(message: Message) -> str:
    # The time that is left changes with every try, and is no news.
    facts = [fact for fact in message.facts if fact[0] != "Expires"]
    return sha256(repr((message.event, message.title, facts)).encode()).hexdigest()[:16]


def _html(message: Message) -> str:
    rows = "".join(
        f'<tr><th align="left" valign="top" style="padding:2px 12px 2px 0">{escape(label)}</th>'
        f'<td style="padding:2px 0;word-break:break-word">{escape(value)}</td></tr>'
        for label, value in message.facts
    )
    color = _COLORS[message.tone]
    return (
        f'<!doctype html><html lang="en"><body style="{_FONT}">'
        f'<h1 style="font-size:18px;color:{color}">{escape(message.title)}</h1>'
        f'<table role="presentation" style="{_FONT}">{rows}</table>'
        f'<p><a href="{escape(message.link)}" style="color:{color}">{escape(message.call_to_action)}</a></p>'
        "<p>An answer to this mail is not read by anybody: requests are answered on the page.</p>"
        "</body></html>"
    )


def _send_error(error: Exception) -> SendError:
    """Return what went wrong, without the server's words: they may repeat the login."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()]
        return SendError("the mail server refuses the addresses", refused=all(code >= 500 for code in codes))
    if isinstance(error, smtplib.SMTPResponseException):
        return SendError(f"the mail server says {error.smtp_code}", refused=error.smtp_code >= 500)
    return SendError(f"no answer from the mail server ({type(error).__name__})")
