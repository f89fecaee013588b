"""What is taken for an answer to a request of ours, from servers that do not finish it."""

import asyncio

import pytest

from ingest import outgoing
from ingest.outgoing import Answer, NoAnswer
from tests.support.http_taker import Taker, running

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
UNFINISHED = {
    "a length, and nothing of it": (OK + b"Content-Length: 2\r\n\r\n", ""),
    "a length, and a part of it": (OK + b"Content-Length: 10\r\n\r\nok", "ok"),
    "chunks, and none of them": (CHUNKED, ""),
    "chunks, and a part of one": (CHUNKED + b"5\r\nhe", "he"),
    "neither a length nor chunks": (OK + b"\r\n", ""),
}


def asked(taker: Taker, *, timeout_s: float = 300) -> Answer:
    return asyncio.run(outgoing.request("POST", taker.url, b"{}", {}, timeout_s=timeout_s))


@pytest.mark.parametrize("stays_open", [False, True], ids=["closed", "kept open"])
@pytest.mark.parametrize(("raw", "text"), UNFINISHED.values(), ids=UNFINISHED)
def test_the_status_is_the_answer_though_the_body_does_not_come(
    monkeypatch: pytest.MonkeyPatch, raw: bytes, text: str, stays_open: bool
) -> None:
    monkeypatch.setattr(outgoing, "_BODY_S", 0.05)
    with running() as taker:
        taker.raw, taker.stays_open = raw, stays_open
        answer = asked(taker)
    assert answer.is_success
    assert answer.text in {text, ""}  # what came before the end may be lost with it


def test_a_body_that_does_not_come_takes_none_of_the_time_that_the_call_has_not() -> None:
    with running() as taker:
        taker.raw, taker.stays_open = CHUNKED, True
        assert asked(taker, timeout_s=0.5).status == 200


@pytest.mark.parametrize("raw", [b"", OK, OK + b"Content-Length: 2\r\n"])
def test_an_answer_without_the_end_of_its_headers_is_none(raw: bytes) -> None:
    with running() as taker:
        taker.raw = raw
        with pytest.raises(NoAnswer):
            asked(taker)
