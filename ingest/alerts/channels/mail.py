"""E-mail over SMTP, by the standard library."""

import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage

from ingest.alerts import notices
from ingest.alerts.channels.base import TIMEOUT_S, ChannelFailed, Envelope
from ingest.alerts.configuration import Email
from ingest.outgoing import shown

_SUBJECT = 150
"""Characters of a subject."""


def send(channel: Email, envelope: Envelope, environ: Mapping[str, str]) -> str:
    """Send a message, and return what the server said.

    Raises:
        ChannelFailed: the server did not take it, or not for everybody.
        SecretMissing: the password is not there.
    """
    password = channel.password_reference.read(environ) if channel.username else ""
    try:
        with _connected(channel) as server:
            if channel.username:
                server.login(channel.username, password)
            refused = server.send_message(compose(channel, envelope))
    except smtplib.SMTPResponseException as error:
        text = error.smtp_error
        said = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text
        raise ChannelFailed(
            f"SMTP {error.smtp_code}: {shown(said, password)}.", reason="refused"
        ) from None
    except smtplib.SMTPRecipientsRefused:
        raise ChannelFailed("No recipient is accepted.", reason="recipients_refused") from None
    except smtplib.SMTPNotSupportedError:
        raise ChannelFailed(
            "The server offers no STARTTLS or no login: look at tls and port.", reason="no_tls"
        ) from None
    except ssl.SSLError:
        raise ChannelFailed(
            "TLS failed: look at tls, port and the server's certificate.", reason="tls_failed"
        ) from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise ChannelFailed(
            f"The server cannot be reached ({type(error).__name__}).", reason="unreachable"
        ) from None
    if refused:
        # Sending it again would reach the others twice.
        return f"Accepted, but not for {len(refused)} of {len(channel.to)} recipients"
    return "Accepted"


def _connected(channel: Email) -> smtplib.SMTP:
    context = ssl.create_default_context()
    where = channel.host, channel.server_port
    if channel.tls == "tls":
        return smtplib.SMTP_SSL(*where, timeout=TIMEOUT_S, context=context)
    server = smtplib.SMTP(*where, timeout=TIMEOUT_S)
    if channel.tls == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def compose(channel: Email, envelope: Envelope) -> EmailMessage:
    """Return the mail. Its Message-ID is the same in every attempt."""
    mail = EmailMessage()
    subject = " ".join(envelope.message.title.split())
    mail["Subject"] = f"[ingest] {subject}"[:_SUBJECT]
    mail["From"] = channel.sender
    mail["To"] = ", ".join(channel.to)
    mail["Date"] = envelope.made_at
    mail["Message-ID"] = f"<{envelope.id}@{channel.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(notices.text(envelope.message))
    return mail
