"""The senders we know, one module each. To add one: write its module, list it in `configured`."""

from ingest.settings import Settings
from ingest.sources.awalchat import SLUG as AWALCHAT
from ingest.sources.awalchat import AwalChat
from ingest.sources.source import Source


def configured(settings: Settings) -> dict[str, Source]:
    """Every source by its slug. Opening stored bodies needs no secrets; verifying requests does."""
    return {
        AWALCHAT: AwalChat(
            [secret.get_secret_value() for secret in settings.awalchat_secrets],
            tolerance_s=settings.awalchat_tolerance_s,
        ),
    }
