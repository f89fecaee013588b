"""A certified OpenID provider on this machine, and people who log in with it.

It is a library for Node.js, in `tests/oidc`: `npm ci --prefix tests/oidc` installs it.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx2

from tests.support.servers.setups import installed

FOLDER = Path(__file__).parents[1] / "oidc"
CLIENT, SECRET = "ingest", "a-secret-of-the-console"
PEOPLE = {
    "amal-1": {"name": "Amal Haddad", "groups": ["staff", "ingest-operators"]},
    "vera-2": {"name": "Vera Lind", "groups": ["support"]},
    "sami-3": {"name": "Sami Noor", "groups": ["sales"]},
}
END_S = 20


@contextmanager
def running_provider(port: int, origin: str, **more: Any) -> Iterator[str]:
    """A provider that knows a console at `origin`; its issuer. It has new keys each time."""
    found = shutil.which("node")
    node = installed(Path(found) if found else None, "Node.js")
    installed(FOLDER / "node_modules/oidc-provider", "oidc-provider")
    issuer = f"http://127.0.0.1:{port}"
    client = {
        "client_id": CLIENT,
        "client_secret": SECRET,
        "redirect_uris": [f"{origin}/login/oidc/callback"],
        "post_logout_redirect_uris": [f"{origin}/login"],
    }
    configuration = {"issuer": issuer, "port": port, "people": PEOPLE, "clients": [client]} | more
    process = subprocess.Popen(
        [node, FOLDER / "provider.js", json.dumps(configuration)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        while "ready" not in (line := process.stdout.readline()):
            assert line, "The provider ended."
        yield issuer
    finally:
        process.kill()
        process.wait(END_S)
        if process.stdout is not None:
            process.stdout.close()


def settings(issuer: str, **more: Any) -> dict[str, Any]:
    """What a console is told of the provider."""
    return {
        "oidc_issuer": issuer,
        "oidc_title": "Example ID",
        "oidc_client_id": CLIENT,
        "oidc_client_secret": SECRET,
        "oidc_operators": "ingest-operators",
        "oidc_viewers": "support",
    } | more


@dataclass(kw_only=True)
class Person:
    """Somebody's browser at the provider."""

    client: httpx2.Client = field(default_factory=httpx2.Client)

    def log_in(self, address: str, subject: str) -> str:
        """Log in and consent where the console sent the browser; where it is sent to then."""
        page = self._follow(address, self.client.get(address))
        for prompt in ("login", "consent"):
            if isinstance(page, str):
                return page
            form = {"prompt": prompt, "login": subject, "password": "any"}
            action = re.search(r'<form[^>]* action="([^"]+)"', page.text)
            assert action, page.text
            page = self._follow(address, self.client.post(action[1], data=form))
        assert isinstance(page, str), page.text
        return page

    def cancel(self, address: str) -> str:
        """Change one's mind at the provider; where the browser is sent to then."""
        page = self._follow(address, self.client.get(address))
        assert not isinstance(page, str)
        abort = re.search(r'href="([^"]+/abort)"', page.text)
        assert abort, page.text
        back = self._follow(address, self.client.get(str(page.url.join(abort[1]))))
        assert isinstance(back, str)
        return back

    def close(self) -> None:
        self.client.close()

    def _follow(self, address: str, answer: httpx2.Response) -> httpx2.Response | str:
        """Follow redirects at the provider; the path and query of one that leads away."""
        here = urlsplit(address).netloc
        while answer.has_redirect_location:
            target = answer.url.join(answer.headers["location"])
            if target.netloc.decode() != here:
                return target.raw_path.decode()
            answer = self.client.get(target)
        return answer


def changed(target: str, **parameters: str) -> str:
    """A target with other parameters."""
    parts = urlsplit(target)
    return urlunsplit(parts._replace(query=urlencode(dict(parse_qsl(parts.query)) | parameters)))
