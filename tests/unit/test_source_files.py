"""The files of INGEST_SOURCES: what they make, and what is told of a bad one."""

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest import environment, settings
from ingest.errors import SettingsError
from ingest.local.folder import DataFolder
from ingest.receiver.app import create_receiver
from ingest.recovery.base import RecoveryFailed
from ingest.recovery.github import GithubHooks
from ingest.sources import registry
from ingest.sources.base import Source
from ingest.sources.described import files, shipped
from ingest.sources.described.explain import explain
from ingest.sources.described.source import DescribedSource
from tests.support.receiving import Ask, ask_receiver

SECRET = "a_secret_of_the_tests_0123456789"


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    registry.use({})


def write(text: str, name: str = "sources.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


TWO_SHOPS = """
[riyadh]
preset = "shopify"
title = "The shop in Riyadh"

[jeddah]
preset = "shopify"
secrets_env = "JEDDAH"
body_limit = 1000
"""


def test_two_sources_of_one_kind_have_their_own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_SOURCES", str(write(TWO_SHOPS)))
    monkeypatch.setenv("INGEST_RIYADH_SECRETS", SECRET)
    monkeypatch.setenv("JEDDAH", SECRET[::-1])
    given = settings.load()
    sources = registry.receiving(given.sources, default="awalchat")
    assert sorted(sources) == ["jeddah", "riyadh"]
    assert sources["riyadh"].secrets == (SECRET,)
    assert sources["jeddah"].secrets == (SECRET[::-1],)
    assert (sources["riyadh"].title, sources["jeddah"].body_limit) == ("The shop in Riyadh", 1000)
    assert given.source_files == (Path("sources.toml"),)
    assert {"JEDDAH", "INGEST_RIYADH_SECRETS"} <= settings.secret_variables()
    assert not environment.unknown({"INGEST_RIYADH_SECRETS": SECRET, "INGEST_SOURCES": "x"})
    monkeypatch.delenv("INGEST_SOURCES")
    settings.load()
    assert "riyadh" not in registry.classes()


def test_a_body_limit_that_can_never_be_met_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INGEST_SOURCES", str(write('[octo]\npreset = "github"\n')))
    monkeypatch.setenv("INGEST_OCTO_SECRETS", SECRET)
    monkeypatch.setenv("INGEST_DATABASE_URL", "postgresql://localhost/x")
    monkeypatch.setenv("INGEST_REDIS_URL", "redis://localhost")
    monkeypatch.setenv("INGEST_MAX_INFLIGHT_BODY_BYTES", str(25 * settings.MIB))
    create_receiver(settings.load())
    monkeypatch.setenv("INGEST_MAX_INFLIGHT_BODY_BYTES", str(25 * settings.MIB - 1))
    with pytest.raises(SettingsError, match=r"body_limit of .* octo is 26214400 .*_BODY_BYTES is"):
        create_receiver(settings.load())
    monkeypatch.delenv("INGEST_OCTO_SECRETS")  # the source receives nothing
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", SECRET)
    create_receiver(settings.load())


def test_a_body_limit_of_all_sources_that_can_never_be_met_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", SECRET)
    monkeypatch.setenv("INGEST_DATABASE_URL", "postgresql://localhost/x")
    monkeypatch.setenv("INGEST_REDIS_URL", "redis://localhost")
    monkeypatch.setenv("INGEST_MAX_BODY_BYTES", "5000000")
    monkeypatch.setenv("INGEST_MAX_INFLIGHT_BODY_BYTES", "4000000")
    with pytest.raises(SettingsError, match="INGEST_MAX_BODY_BYTES is 5000000 bytes, and"):
        create_receiver(settings.load())


def test_a_file_of_secrets_that_was_emptied_is_told_and_revokes_nothing_silently(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "octo.secret"
    file.write_text(SECRET)
    described = f'[octo]\npreset = "github"\nsecrets_file = "{file}"\n'
    monkeypatch.setenv("INGEST_SOURCES", str(write(described)))
    loaded = settings.load()
    file.write_text("\n")
    with pytest.raises(SettingsError, match=r"octo\.secret: it is empty"):
        settings.reload_secrets(loaded.sources, os.environ)
    with pytest.raises(SettingsError, match=r"octo\.secret: it is empty"):
        settings.load()


CHECKED = """
[meta]
preset = "github"
[meta.challenge]
method = "GET"
match_field = "hub.mode"
match_value = "subscribe"
echo = "hub.challenge"
token = "hub.verify_token"
"""


@pytest.mark.parametrize("by", ["own variable", "variable", "file"])
def test_a_challenge_by_get_has_a_verify_token_of_its_own(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "a_token_of_the_tests_0123456789"
    more = {
        "own variable": "",
        "variable": 'verify_token_env = "META"',
        "file": 'verify_token_file = "t"',
    }
    monkeypatch.setenv("INGEST_SOURCES", str(write(CHECKED + more.get(by, ""))))
    monkeypatch.setenv("INGEST_META_SECRETS", SECRET)
    variable = {"own variable": "INGEST_META_VERIFY_TOKEN", "variable": "META"}.get(by)
    write(token + "\n", "t")
    if variable is not None:
        source = registry.configured(settings.load().sources)["meta"]
        assert ask(source, token) == (401, "verify_token_not_set")
        monkeypatch.setenv(variable, token)
        assert variable in settings.secret_variables()
    source = registry.configured(settings.load().sources)["meta"]
    assert ask(source, token) == (200, "")
    for wrong in (SECRET, "", token + "x", f"{token}&hub.verify_token={token}"):
        assert ask(source, wrong) == (401, "verify_token_mismatch")
    assert isinstance(source, DescribedSource)
    (said,) = [s for s in explain(type(source), max_body_bytes=1) if "verify token" in s]
    assert (variable or "the file t") in said


def ask(source: Source, token: str) -> tuple[int, str]:
    query = f"hub.mode=subscribe&hub.challenge=42&hub.verify_token={token}"
    (answer,) = ask_receiver(source, Ask(method="GET", query=query))
    if answer.status == 200:
        assert (answer.body, answer.content_type) == (b"42", "text/plain")
        return 200, ""
    return answer.status, json.loads(answer.body)["error"]


def test_the_data_folder_describes_sources_too_and_the_own_files_are_in_their_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.path.mkdir()
    settings.load(data=folder.path)
    assert "standard-webhooks" not in registry.classes()
    folder.describe_sources()
    settings.load(data=folder.path)
    assert registry.classes()["standard-webhooks"].title == "Standard Webhooks"
    secret = folder.secret("standard-webhooks")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    own = '[standard-webhooks]\npreset = "standard-webhooks"\ntitle = "Ours"\n'
    monkeypatch.setenv("INGEST_SOURCES", str(write(own)))
    monkeypatch.setenv("INGEST_DATA", str(folder.path))
    settings.load()
    assert registry.classes()["standard-webhooks"].title == "Ours"
    monkeypatch.delenv("INGEST_SOURCES")
    (folder.path / "sources.toml").write_text("")
    folder.describe_sources()
    settings.load()
    assert "standard-webhooks" not in registry.classes()


def test_secrets_come_from_a_file_beside_the_description(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("conf").mkdir()
    write(SECRET + "\n", "conf/bot.secret")
    write('[bot]\npreset = "telegram"\nsecrets_file = "bot.secret"\n', "conf/one.toml")
    write('[hub]\npreset = "github"\n', "two.toml")
    monkeypatch.setenv("INGEST_SOURCES", "conf/one.toml, two.toml")
    sources = registry.configured(settings.load().sources)
    assert sources["bot"].secrets == (SECRET,)
    assert sources["hub"].secrets == ()
    Path("conf/bot.secret").unlink()
    with pytest.raises(SettingsError, match=r"conf/bot.secret: No such file"):
        settings.load()


def test_the_token_of_a_recovery_comes_from_a_file_beside_the_description() -> None:
    Path("conf").mkdir()
    write(f"{SECRET}\n", "conf/token")
    path = write(
        '[hub]\npreset = "github"\n[hub.recover]\nhooks = "app/hook"\ntoken_file = "token"\n'
        '[app]\npreset = "github"\n[app.recover]\ntoken_file = "token"\napp = "Iv1.1"\n',
        "conf/one.toml",
    )
    sources = files.read([path])
    recovery = sources["hub"].recovery()
    assert isinstance(recovery, GithubHooks)
    assert (recovery.hooks, recovery.token(0)) == (("app/hook",), SECRET)
    of_app = sources["app"].recovery()
    assert isinstance(of_app, GithubHooks)
    with pytest.raises(RecoveryFailed, match="no RSA key"):
        of_app.token(0)


def test_a_running_up_tells_its_descriptions() -> None:
    path = write(TWO_SHOPS)
    Path(".ingest").mkdir()
    Path(".ingest/up.json").write_text(f'{{"source_files": "{path.resolve()}"}}')
    settings.load()
    assert "riyadh" in registry.classes()
    settings.load(standalone=True)
    assert "riyadh" not in registry.classes()


def test_a_secret_that_is_not_encoded_as_described_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_SOURCES", str(write('[std]\npreset = "standard-webhooks"\n')))
    monkeypatch.setenv("INGEST_STD_SECRETS", "whsec_SENTINEL!SENTINEL!")
    with pytest.raises(
        SettingsError, match=r"INGEST_STD_SECRETS: secret 1 is not encoded in base64\."
    ) as told:
        settings.load()
    assert "SENTINEL" not in str(told.value)


WHOLE = """[own]
title = "Own"
id = "{path:id}"
type = "{path:type}"
verify = { scheme = "hmac-sha256", header = "x-signature" }
samples = [{ type = "a", body = '{"type":"a","id":"<id>"}' }]
"""


def test_a_description_without_a_preset_is_six_lines() -> None:
    assert files.read([write(WHOLE)])["own"].title == "Own"


BAD: dict[str, tuple[str, str]] = {
    "an unknown key": ('[a]\npreset = "github"\n\nSENT = 1\n', "4: a.SENT: there is no such key."),
    "a key too deep": (
        '[a]\npreset = "stripe"\n[a.time]\nfieldd = "SENTINEL"\n',
        "4: a.time.fieldd: there is no such key; perhaps field was meant.",
    ),
    "an unknown preset": (
        '[a]\npreset = "SENTINEL"\n',
        "2: a.preset: this must be one of github, ",
    ),
    "a literal secret": (
        '[a]\npreset = "github"\nsecrets = ["SENTINEL"]\n',
        "3: a.secrets: a secret does not stand in this file; use secrets_env or secrets_file.",
    ),
    "no TOML": ("[a]\npreset = SENTINEL\n", "2: this is not TOML: invalid value."),
    "a table that is there twice": (
        '[a]\npreset = "github"\n[a]\n',
        "3: this is not TOML: cannot declare ('a',) twice.",
    ),
    "a misspelt key that is needed": (
        '[a]\ntitle = "SENTINEL"\ntipe = "{path:type}"\n',
        "3: a.tipe: there is no such key; perhaps type was meant.",
    ),
    "a header as it is written in a request": (
        '[a]\npreset = "github"\n[a.verify]\nheader = "X-SENTINEL:"\n',
        "4: a.verify.header: a header's name is lower-case letters, digits and dashes",
    ),
    "a template for a path": (
        '[a]\npreset = "github"\noccurred_at = "{path:SENTINEL}"\n',
        "3: a.occurred_at.0: this is a field's path, a.b, and no template",
    ),
    "a list for a table": (
        '[a]\npreset = "github"\nentities = ["SENTINEL"]\n',
        "3: a.entities: this must be a table.",
    ),
    "a time in words": (
        '[a]\npreset = "stripe"\n[a.time]\npast_s = "SENTINEL"\n',
        "4: a.time.past_s: this must be a whole number.",
    ),
    "a time ahead in words": (
        '[a]\npreset = "stripe"\n[a.time]\nfuture_s = "SENTINEL"\n',
        "4: a.time.future_s: this must be a whole number.",
    ),
    "no table": ('a = "SENTINEL"\n', "1: a: each source is a table, [name]."),
    "a bad name": ('[A_b]\npreset = "github"\n', "1: A_b: a name is lower-case letters"),
    "a number that is a text": (
        '[a]\npreset = "github"\nbody_limit = "SENTINEL"\n',
        "3: a.body_limit: this must be a whole number.",
    ),
    "a scheme that is none": (
        '[a]\npreset = "github"\n[a.verify]\nscheme = "SENTINEL"\n',
        "4: a.verify.scheme: input",
    ),
    "a hook that is none": (
        '[a]\npreset = "github"\n[a.recover]\nhooks = ["SENTINEL"]\n',
        "4: a.recover.hooks: a hook is repos/OWNER/NAME/hooks/ID",
    ),
    "a literal token": (
        '[a]\npreset = "github"\n[a.recover]\ntoken = "SENTINEL"\n',
        "4: a.recover.token: there is no such key; perhaps token_env was meant.",
    ),
    "a wait without end": (
        '[a]\npreset = "github"\n[a.retries]\nwaits_s = [60, inf]\n',
        "4: a.retries.waits_s",
    ),
    "a time-out that is no number": (
        '[a]\npreset = "github"\n[a.retries]\ntimeout_s = nan\n',
        "4: a.retries.timeout_s: input should be a finite number.",
    ),
    "a template without end": (
        '[a]\npreset = "github"\nid = "{path:id"\n',
        "3: a.id: the template has a brace",
    ),
    "a token that is encoded": (
        '[a]\npreset = "gitlab"\n[a.verify]\nkey = "base64"\n',
        "3: a.verify: with a token nothing is signed: take key away.",
    ),
    "a prefix of a token in the body": (
        '[a]\npreset = "moyasar"\n[a.verify]\nprefix = "SENTINEL"\n',
        "3: a.verify: a prefix stands in a header",
    ),
    "a separator without a field": (
        '[a]\npreset = "github"\n[a.verify]\nseparator = ","\n',
        "3: a.verify: separator and field go together.",
    ),
    "a time that is not signed": (
        '[a]\npreset = "gitlab"\n[a.time]\nheader = "x-time"\n',
        "1: a: a time that is not signed proves nothing: take time away.",
    ),
    "a signed address that nobody knows": (
        '[a]\npreset = "square"\n',
        "1: a: the sender signs its address: set url",
    ),
    "two places for a secret": (
        '[a]\npreset = "github"\nsecrets_env = "X"\nsecrets_file = "y"\n',
        "1: a: secrets_env and secrets_file contradict each other.",
    ),
    "two places of a verify token": (
        CHECKED + 'verify_token_env = "X"\nverify_token_file = "y"\n',
        "4: meta.challenge: verify_token_env and verify_token_file contradict each other.",
    ),
    "a large body before it is verified": (
        '[a]\npreset = "moyasar"\nbody_limit = 1000000\n',
        "1: a: a token in the body needs a body_limit of 65536 or less.",
    ),
    "nothing": ("[a]\n", "1: a.title: this key is missing."),
}


def test_a_signature_that_leaves_the_body_out_is_told() -> None:
    line = 'verify = { scheme = "hmac-sha256", header = "x-s", signed = "{header:x-t}" }'
    told = {
        text: "\n".join(explain(files.read([write(text)])["own"], max_body_bytes=1))
        for text in (
            WHOLE,
            WHOLE.replace(next(v for v in WHOLE.splitlines() if "verify" in v), line),
        )
    }
    assert ["The body is not signed" in each for each in told.values()] == [False, True]


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told_with_file_line_and_one_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, sentence = BAD[name]
    monkeypatch.setenv("INGEST_SOURCES", str(write(text)))
    with pytest.raises(SettingsError) as told:
        settings.load()
    assert str(told.value).startswith(f"sources.toml:{sentence}")
    assert "SENTINEL" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_file_and_a_name_that_is_there_twice_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INGEST_SOURCES", "nowhere.toml")
    with pytest.raises(SettingsError, match=r"^INGEST_SOURCES: nowhere.toml: No such file"):
        settings.load()
    write('[a]\npreset = "github"\n', "a.toml")
    write('# again\n[a]\npreset = "github"\n', "b.toml")
    monkeypatch.setenv("INGEST_SOURCES", "a.toml,b.toml")
    with pytest.raises(SettingsError, match=r"^b.toml:2: a: another file has this name"):
        settings.load()
    monkeypatch.setenv("INGEST_SOURCES", str(write('[awalchat]\npreset = "github"\n')))
    with pytest.raises(SettingsError, match="The source awalchat cannot be used"):
        settings.load()


@pytest.mark.parametrize("name", shipped.names())
def test_a_preset_alone_is_a_source(name: str) -> None:
    more = 'url = "https://example.com/hook"\n' if name == "square" else ""
    assert list(files.read([write(f'[a]\npreset = "{name}"\n{more}')])) == ["a"]


def test_the_worked_example_of_the_documents_is_a_source() -> None:
    page = (Path(__file__).parents[2] / "docs/add-a-sender.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    made = files.read([write(text, f"{n}.toml") for n, text in enumerate(examples)])
    assert sorted(made) == ["jeddah", "paddle", "riyadh", "shop", "typeform"]
    assert len(examples[1].strip().splitlines()) < 10
    for preset in shipped.names():
        assert f"`{preset}`" in page
