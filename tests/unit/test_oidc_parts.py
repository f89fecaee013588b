"""OpenID Connect without a provider: what the settings must say, and who claims are of."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from ingest.console.auth.oidc import configuration
from ingest.console.auth.oidc.members import member
from ingest.console.auth.roles import Role
from ingest.errors import SettingsError
from ingest.settings import load
from tests.support.oidc import settings

ISSUER = "https://id.example"


def read(**more: Any) -> configuration.Configuration:
    configured = configuration.read(load(**settings(ISSUER, **more)))
    assert configured is not None
    return configured


def test_without_an_issuer_it_is_off() -> None:
    assert configuration.read(load()) is None


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"oidc_client_id": None}, "CLIENT_ID and INGEST_OIDC_CLIENT_SECRET must be set with it"),
        ({"oidc_client_secret": None}, "INGEST_OIDC_CLIENT_SECRET must be set with it"),
        (
            {"oidc_operators": None, "oidc_viewers": None},
            "must be set with it: nobody would get in",
        ),
        ({"oidc_scopes": "profile"}, "INGEST_OIDC_SCOPES must hold openid"),
        ({"oidc_issuer": None}, "have no effect without INGEST_OIDC_ISSUER"),
        ({"oidc_issuer": "http://id.example"}, "must be https://HOST/PATH without a query"),
        ({"oidc_issuer": "https://a@id.example"}, "must be https://HOST/PATH without a query"),
        ({"oidc_issuer": "https://id.example/?a"}, "must be https://HOST/PATH without a query"),
        ({"console_url": "https://example/console"}, "the console's pages lie at the root"),
        ({"console_url": "console.example"}, "the console's pages lie at the root"),
        ({"oidc_session_s": 43_201}, "must be at most 43200"),
    ],
)
def test_settings_that_are_not_whole_stop_the_start(more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        read(**more)


def test_a_library_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"pip install 'webhook-ingest\[oidc\]'"):
        read()


def test_the_provider_is_called_by_its_host_unless_it_has_a_title() -> None:
    assert read(oidc_title=None).title == "id.example"
    assert "a-secret" not in repr(read())


@pytest.mark.parametrize(
    ("claims", "more", "role"),
    [
        ({"groups": ["ingest-operators"]}, {}, Role.OPERATOR),
        ({"groups": "support"}, {}, Role.VIEWER),
        ({"groups": ["support", "ingest-operators"]}, {}, Role.OPERATOR),
        ({"groups": []}, {}, None),
        ({}, {}, None),
        ({"groups": {"support": 1}}, {}, None),
        ({"groups": ["SUPPORT", 7, None]}, {}, None),
        ({"realm": {"roles": ["support"]}}, {"oidc_role_claim": "realm.roles"}, Role.VIEWER),
        ({"realm": ["support"]}, {"oidc_role_claim": "realm.roles"}, None),
        ({"https://a.b/c": "support"}, {"oidc_role_claim": "https://a.b/c"}, Role.VIEWER),
        ({"email": "support"}, {"oidc_role_claim": "email"}, None),
        ({"email": "support", "email_verified": "true"}, {"oidc_role_claim": "email"}, None),
        ({"email": "support", "email_verified": True}, {"oidc_role_claim": "email"}, Role.VIEWER),
    ],
)
def test_a_role_is_given_by_the_values_of_one_claim(
    claims: Mapping[str, Any], more: dict[str, Any], role: Role | None
) -> None:
    assert member({"sub": "1"} | dict(claims), read(**more)).role == role


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"name": "Amal"}, "Amal"),
        ({"name": " \x00\u202e ", "preferred_username": "amal"}, "amal"),
        ({"name": 7}, "sub-1"),
        ({"name": "x" * 100}, "x" * 64),
        ({}, "sub-1"),
    ],
)
def test_a_name_can_be_shown(claims: dict[str, Any], name: str) -> None:
    assert member({"sub": "sub-1"} | claims, read()).name == name
