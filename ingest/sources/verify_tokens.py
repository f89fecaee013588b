"""The token that a sender shows when it checks an address by `GET`, which its operator chose."""

import hmac
from collections.abc import Sequence

from pydantic import Field, SecretStr, field_validator

from ingest import setting_values
from ingest.errors import InvalidSignature
from ingest.sources.base import MIN_SECRET_LENGTH, SourceSettings


class VerifyTokenSettings(SourceSettings):
    """The settings of a source that is checked by a token."""

    verify_token: SecretStr | None = Field(
        None,
        description="what the token must be by which the sender checks the address; unset: no such"
        " check is answered",
    )

    @field_validator("verify_token", mode="before")
    @classmethod
    def _parse_token(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        tokens = setting_values.parse_secrets(value, min_length=MIN_SECRET_LENGTH)
        if len(tokens) != 1:
            raise ValueError("must be one token, without a comma in it")
        return tokens[0]


def check(tokens: Sequence[str], settings: SourceSettings, variable: str) -> None:
    """Check the tokens of a request: there is one, and it is that of the settings.

    Args:
        tokens: of the request.
        settings: of the source.
        variable: the name of the variable of the token.

    Raises:
        InvalidSignature: it is another one, or there is none here.
    """
    expected = settings.verify_token if isinstance(settings, VerifyTokenSettings) else None
    if expected is None:
        raise InvalidSignature(
            f"There is no verify token: set {variable}.", reason="verify_token_not_set"
        )
    shown = tokens[0].encode("utf-8", "surrogatepass") if len(tokens) == 1 else b""
    if not hmac.compare_digest(shown, expected.get_secret_value().encode()):
        raise InvalidSignature("The verify token is another one.", reason="verify_token_mismatch")
