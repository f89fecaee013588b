"""Pictures of the console's pages for the documentation.

    python -m tests.browser.screenshots [FOLDER]
    python -m tests.browser.screenshots --all FOLDER

Starts everything on servers of its own, lets a shop send a day's events, and writes each page in
light and in dark to FOLDER (docs/screenshots unless it is given). Takes about a minute and needs
what `python3 dev.py browser` installs, Chromium too. Look at every picture before it is kept;
`pngquant --ext .png --force` makes them a third as large. `--all` writes every page, whole, in
three widths, for those who change the looks.
"""

import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import text

from ingest.console.auth.credentials import digest
from ingest.console.auth.passwords import hash_password
from ingest.local import postgres, valkey
from ingest.sources.awalchat.shop import Shop
from ingest.store import migrations, partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.acceptance.harness import Stack, request
from tests.browser.camera import FURTHER_PAGES, NARROW, PAGES, PASSWORD, Camera, Shown, at
from tests.conftest import Running
from tests.support.signing import signed_headers
from tests.support.waiting import until

EVENTS = 6_000
TOKENS = {"noura": "token_of_noura", "fahad": "token_of_fahad"}

PROCESSORS = '''
"""What the shop plugs in. Files say which of the services that it calls are away."""

from pathlib import Path

from sqlalchemy import Connection

from workers import Discard, Event, processor


class CourierError(Exception):
    """The courier's API answered with an error."""


@processor("order.created", "order.status.updated", name="crm", max_attempts=4, timeout_s=10)
def tell_crm(event: Event, db: Connection) -> None:
    order = event.data["order_id"]
    if Path("crm-is-away").exists() or (order % 40 == 7 and event.attempt < 3):
        raise ConnectionError("crm.shop.example: connection refused")


@processor("order.created", name="invoices", max_attempts=2)
def write_invoice(event: Event, db: Connection) -> None:
    amount = f"{event.data['total']} {event.data['currency']}"
    if event.data["total"] > 4_950:
        raise Discard(f"{amount} is above the limit: invoices by hand")


@processor("order.status.updated", name="courier", retry_base_s=7_200, retry_max_delay_s=86_400)
def call_courier(event: Event, db: Connection) -> None:
    if event.data["new_status"] == "shipped" and Path("courier-is-away").exists():
        raise CourierError("503 from api.courier.example: try again later")


@processor("contact.created", "contact.updated", name="newsletter", queue="bulk")
def subscribe(event: Event, db: Connection) -> None:
    pass
'''


def main(folder: Path, *, whole: bool) -> None:
    """Write the pictures of the documentation, or all pages in all widths."""
    folder.mkdir(parents=True, exist_ok=True)
    with everything() as stack, sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        shown = fill(stack)
        if whole:
            pause(stack)
            write_all(browser, shown, folder)
        else:
            write_documented(browser, stack, shown, folder)
        browser.close()


def write_all(browser: Browser, shown: Shown, folder: Path) -> None:
    """Write every page in every width, light and dark."""
    for scheme in ("light", "dark"):
        camera = Camera(browser, shown, folder, scheme)
        for name, reach in (PAGES | FURTHER_PAGES).items():
            camera.take_in_all_widths(name, reach)


def write_documented(browser: Browser, stack: Stack, shown: Shown, folder: Path) -> None:
    """Write the pictures that docs/ shows."""
    cameras = [Camera(browser, shown, folder, scheme) for scheme in ("light", "dark")]
    for camera in cameras:
        for name, reach in PAGES.items():
            camera.take(f"{name}-{camera.scheme}", reach)
        for name in ("overview", "event"):
            camera.take(f"{name}-narrow-{camera.scheme}", PAGES[name], viewport=NARROW)
    pause(stack)
    for camera in cameras:
        camera.take(f"processors-{camera.scheme}", at("/processors"))
        camera.take(f"audit-log-{camera.scheme}", at("/audit-log"))
        camera.take(f"login-{camera.scheme}", at("/login"), logged_in=False)


@contextmanager
def everything() -> Iterator[Stack]:
    """A receiver, a worker, a relay and a console, on a new database."""
    with ExitStack() as ends:
        home = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="shots-")))
        for name in ("run", "logs", "shop"):
            (home / name).mkdir(mode=0o700)
        sockets = home / "run"
        for program in (postgres.program(home, sockets), valkey.program(home, sockets)):
            ends.enter_context(Running(program))
        url = postgres.url(sockets, "postgres")
        engine = create_engine(parse(url), role=Role.MIGRATION)
        with engine.connect() as connection:
            migrations.upgrade(connection)
        with engine.begin() as connection:
            partitions.ensure(connection, today=datetime.now(UTC).date(), days_ahead=2)
            connection.exec_driver_sql("ALTER DATABASE postgres SET search_path = ingest, public")
        engine.dispose()
        stack = Stack(
            url,
            valkey.url(sockets),
            home / "shop",
            processors="shop",
            console_users=f"noura:operator:{hash_password(PASSWORD)}",
            console_tokens=";".join(
                f"{name}:operator:{digest(token)}" for name, token in TOKENS.items()
            ),
        )
        ends.callback(stack.close)
        (stack.folder / "shop.py").write_text(PROCESSORS)
        for start in (stack.receiver, stack.worker, stack.relay, stack.console):
            start()
        yield stack


# A day at the shop.


def fill(stack: Stack) -> Shown:
    """Let a day's events arrive, with all that goes wrong, and put them where the day had them."""
    registered = "SELECT count(*) FROM processors"
    until(lambda: stack.value(registered) > 7, what="the worker has registered")
    send(stack, bodies(Random(7)))
    spread(stack)
    operate(stack)
    hide_home(stack)  # of retries since

    def one(sql: str) -> str:
        found: str = stack.value(f"SELECT {sql} LIMIT 1")
        return found

    return Shown(
        origin=f"http://127.0.0.1:{stack.console_port}",
        dead=one("max(event::text) FROM jobs WHERE state = 'dead' AND processor = 'crm'"),
        conflict=one("event::text FROM duplicates WHERE conflict"),
        rejected=one("id::text FROM deliveries WHERE rejected = 'body_not_json'"),
    )


def bodies(random: Random) -> list[bytes]:
    """What the shop sends in a day, in its order; towards the end some of it is odd."""
    happened = Shop(random, opened_at=datetime.now(UTC) - timedelta(days=1)).occurrences()
    found = [told(each.type, each.data, each.timestamp) for each in islice(happened, EVENTS)]
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    items = ["عباية سوداء مطرّزة، مقاس 54", "Oud perfume, 50 ml"]
    order = {"order_id": 55_120_417, "conversation_id": 88, "status": "pending", "total": 1250.0}
    whole = order | {"currency": "SAR", "items": items}
    paid = {"invoice_id": 7_301, "amount": 1250.0, "currency": "SAR"}
    for place, event_type, data in (
        (-400, "order.created", whole | {"total": 1175.0}),  # the same id, another body
        (-70, "order.created", order | {"order_id": 55_120_420}),
        (-52, "order.created", order | {"order_id": 55_120_433}),
        (-33, "invoice.paid", paid),
        (-30, "order.created", whole),
        (-16, "order.created", order | {"order_id": 55_120_438}),
        (-9, "invoice.paid", paid | {"invoice_id": 7_302}),
    ):
        found.insert(place, told(event_type, data, stamp))
    return found


def told(event_type: str, data: dict[str, Any], timestamp: str) -> bytes:
    envelope = {"event": event_type, "timestamp": timestamp, "data": data}
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()


def send(stack: Stack, all_of_them: Sequence[bytes]) -> None:
    """Post them, while for a part of the day a service is away; some are posted again."""
    random = Random(9)
    away = {"crm-is-away": (0.70, 0.73), "courier-is-away": (0.86, 1.0)}
    cuts = sorted({0.0, 1.0, *(each for span in away.values() for each in span)})
    for begins, ends in pairwise(cuts):
        for name, (since, until_then) in away.items():
            (stack.folder / name).unlink(missing_ok=True)
            if since <= begins < until_then:
                (stack.folder / name).touch()
        first, last = (int(share * len(all_of_them)) for share in (begins, ends))
        part = list(all_of_them[first:last])
        stack.post_all(part)
        stack.post_all(random.sample(part, len(part) // 25))
        wait_until_quiet(stack)
    for odd in ('{"event":"message.received","data":{"body":"أين طلب', "[]"):
        stack.post(odd.encode())
    odd_headers: tuple[dict[str, str], ...] = (
        {},
        signed_headers(all_of_them[0]) | {"X-Awal-Webhook-Signature": "0" * 64},
        signed_headers(all_of_them[0], timestamp=int(time.time()) - 86_400),
    )
    for headers in odd_headers:
        headers["User-Agent"] = "curl/8.5.0"
        request(stack.ports[0], "POST", "/webhooks/awalchat", all_of_them[0], headers)
    wait_until_quiet(stack)


def wait_until_quiet(stack: Stack) -> None:
    """Until nothing is left but what waits for a service."""
    left = (
        "SELECT (SELECT count(*) FROM unadmitted) + (SELECT count(*) FROM jobs WHERE state IN"
        " ('pending', 'running') OR (state = 'retrying' AND processor <> 'courier'))"
    )
    until(lambda: stack.value(left) == 0, what="all is worked on")


def operate(stack: Stack) -> None:
    """What operators did in the last hours."""
    tell(stack, "noura", "/test-event", type="message.received")
    wanted = {"q": "processor:crm error:ConnectionError type:order.created"}
    first = tell(stack, "noura", "/bulk-actions", reason="the CRM is back", **wanted)
    until(lambda: stack.value("SELECT status FROM replays WHERE id = 1") == "finished")
    assert first["bulk_action"]["id"] == 1
    by_hand = stack.value(
        "SELECT min(j.event::text) FROM jobs j JOIN attempts ON job = j.id"
        " WHERE error_type = 'Discard'"
    )
    tell(stack, "fahad", f"/events/{by_hand}/discard", reason="فاتورة يدوية، تمت المعالجة")
    again = {"q": "type:message.* state:succeeded", "rate": 20}
    tell(stack, "fahad", "/bulk-actions", reason="new column in the read model", **again)
    done = "SELECT count(*) FROM jobs WHERE replay = 3 AND state = 'succeeded'"
    until(lambda: stack.value(done) >= 60, what="it is half done")
    tell(stack, "fahad", "/bulk-actions/3/pause", reason="after the evening's peak")
    wait_until_quiet(stack)
    with stack.engine.begin() as connection:
        connection.exec_driver_sql(_HOURS_AGO)
    erase(stack)


def erase(stack: Stack) -> None:
    """Let one person be erased, and another one be found."""
    phones = stack.query("SELECT phone FROM contacts WHERE phone IS NOT NULL ORDER BY 1 LIMIT 2")
    for number, row in enumerate(phones, start=1):
        tell(stack, "noura", "/erasures", phones=[row["phone"]], reason=f"letter {70 + number}")
        wait_for_erasure(stack, number, "found")
    tell(stack, "fahad", "/erasures/1/erase")
    wait_for_erasure(stack, 1, "finished")


def wait_for_erasure(stack: Stack, number: int, status: str) -> None:
    """Until a request to erase a person has a status."""
    sql = "SELECT status FROM erasures WHERE id = :id"
    until(lambda: stack.value(sql, id=number) == status, what=status)


def pause(stack: Stack) -> None:
    """Pause a processor, and let something wait for it."""
    tell(stack, "noura", "/processors/newsletter/pause", reason="until the new templates are live")
    for number in range(3):
        named = {"id": 9_000 + number, "name": "سارة", "phone": f"96650000000{number}"}
        stack.post(told("contact.created", named, "2026-01-20T11:00:00Z"))
    until(lambda: stack.value("SELECT count(*) FROM jobs WHERE state = 'pending'") == 3)


def tell(stack: Stack, by: str, path: str, **document: Any) -> Any:
    """Ask the console's API for something."""
    answer = stack.tell(path, document, authorization=f"Bearer {TOKENS[by]}")
    assert answer.status == 200, answer.body
    return answer.json


# The day, put back to where it was.


def spread(stack: Stack) -> None:
    """Move everything from the minute in which it was posted to when the shop would have sent it,
    and count it there."""
    events = [each["id"] for each in stack.query("SELECT id::text FROM events ORDER BY id")]
    with stack.engine.begin() as connection:
        moments = moments_of_a_day(len(events), until_then=datetime.now(UTC))
        connection.execute(text(_MOMENTS), {"ids": events, "moments": moments})
        connection.exec_driver_sql(_SPREAD)
    hide_home(stack)


def hide_home(stack: Stack) -> None:
    """Let the shop's code lie in /app, as tracebacks tell it."""
    with stack.engine.begin() as connection:
        connection.execute(
            text("UPDATE attempts SET traceback = replace(traceback, :home, '/app')"),
            {"home": str(stack.folder)},
        )


def moments_of_a_day(count: int, *, until_then: datetime) -> list[datetime]:
    """`count` moments of the last day, as dense as customers are awake: few at night, a peak
    towards noon and a higher one in the evening, by Riyadh's clock."""
    random = Random(11)
    minutes = [until_then - timedelta(minutes=ago) for ago in range(1440, 0, -1)]
    weights = [awake((each.hour + 3) % 24 + each.minute / 60) for each in minutes]
    chosen = random.choices(minutes, [each * random.uniform(0.7, 1.3) for each in weights], k=count)
    return sorted(each + timedelta(seconds=random.uniform(0, 58)) for each in chosen)


def awake(hour: float) -> float:
    noon, evening = math.exp(-(((hour - 12.5) / 2.8) ** 2)), math.exp(-(((hour - 21) / 2.3) ** 2))
    return 0.06 + 0.6 * noon + evening


_MOMENTS = """
    CREATE TEMPORARY TABLE moved ON COMMIT DROP AS
    SELECT e.id, m.moment, m.moment - e.received_at AS by
    FROM unnest(CAST(:ids AS uuid[]), CAST(:moments AS timestamptz[])) AS m (id, moment)
    JOIN events e USING (id)
"""
_BUCKET = "CASE WHEN ms < 1 THEN 0 ELSE least(24, floor(log(2, ms))::int + 1) END"
_MS = "(extract(epoch FROM a.finished_at - a.started_at) * 1000)::numeric AS ms"


def _invented(what: str, median_ms: float) -> str:
    """Durations about a median, one for each event, longer while the CRM was away."""
    return f"""
        INSERT INTO activity (minute, what, label, bucket, slot, count)
        SELECT minute, '{what}', '', {_BUCKET}, 0, count(*) FROM (
            SELECT date_trunc('minute', received_at) AS minute, ({median_ms} * exp(
                0.5 * (random() + random() + random() + random() - 2) * 2
                + 0.4 * sin(extract(epoch FROM received_at) / 5000)))::numeric AS ms
            FROM events) AS invented
        GROUP BY 1, 4
    """


_SPREAD = f"""
    UPDATE events e SET received_at = moment FROM moved m WHERE m.id = e.id;
    UPDATE duplicates d SET received_at = moment + random() * interval '90 s'
        FROM moved m WHERE m.id = d.event;
    UPDATE deliveries d SET received_at = moment FROM moved m WHERE m.id = d.id;
    UPDATE deliveries d SET received_at = u.received_at FROM duplicates u WHERE u.delivery = d.id;
    UPDATE deliveries SET received_at = received_at - random() * interval '9 h'
        WHERE rejected IS NOT NULL;
    UPDATE deliveries SET headers = (SELECT jsonb_agg(CASE
            WHEN lower(h->>0) <> 'x-awal-webhook-timestamp' THEN h
            ELSE jsonb_build_array(h->>0, floor(extract(epoch FROM received_at) - 0.2)::text) END)
        FROM jsonb_array_elements(headers) AS h);
    UPDATE jobs j SET started_at = started_at + by, finished_at = finished_at + by
        FROM moved m WHERE m.id = j.event;
    UPDATE attempts a SET started_at = a.started_at + by, finished_at = a.finished_at + by
        FROM jobs j JOIN moved m ON m.id = j.event WHERE j.id = a.job;
    UPDATE refusals SET at = at - random() * interval '5 h';
    DELETE FROM refusal_counts;
    INSERT INTO refusal_counts
        SELECT date_trunc('minute', at), reason, source, client, status, sentence,
               1 + floor(random() * most), at, at, gen_random_uuid()
        FROM (VALUES
            ('signature_mismatch', 'awalchat', '203.0.113.7', 401,
             'The signature does not match.', 9, 3),
            ('signature_mismatch', 'awalchat', '198.51.100.4', 401,
             'The signature does not match.', 2, 2),
            ('signature_missing', 'awalchat', '198.51.100.23', 401,
             'The signature header is missing.', 2, 19),
            ('unknown_source', '', '192.0.2.80', 404, 'No such source.', 3, 22)
        ) AS kind (reason, source, client, status, sentence, most, hours)
        CROSS JOIN generate_series(now() - hours * interval '1 h', now() - interval '2 min',
                                   interval '13 min') AS at;
    UPDATE processes SET started_at = started_at - interval '75 h', host = 'shop-1';
    DELETE FROM activity WHERE what <> 'refused';
    DELETE FROM activity_sums;
    INSERT INTO activity (minute, what, label, bucket, slot, count)
        SELECT date_trunc('minute', received_at), 'event', '', 0, 0, count(*)
        FROM events GROUP BY 1;
    INSERT INTO activity (minute, what, label, bucket, slot, count)
        SELECT date_trunc('minute', received_at), 'duplicate', '', 0, 0, count(*)
        FROM duplicates GROUP BY 1;
    INSERT INTO activity (minute, what, label, bucket, slot, count)
        SELECT date_trunc('minute', finished_at), 'succeeded', processor, {_BUCKET}, 0, count(*)
        FROM (SELECT a.processor, a.finished_at, {_MS} FROM jobs a WHERE state = 'succeeded') AS d
        GROUP BY 1, 3, 4;
    INSERT INTO activity (minute, what, label, bucket, slot, count)
        SELECT date_trunc('minute', finished_at), 'failed', processor, {_BUCKET}, 0, count(*)
        FROM (SELECT j.processor, a.finished_at, {_MS}
              FROM attempts a JOIN jobs j ON j.id = a.job WHERE outcome = 'failed') AS d
        GROUP BY 1, 3, 4;
    {_invented("lag", 55)};
    {_invented("answer", 7)};
"""

_HOURS_AGO = """
    CREATE TEMPORARY TABLE earlier ON COMMIT DROP AS
        SELECT id, replay, (6 - id) * interval '47 min' AS ago FROM actions;
    UPDATE actions a SET at = at - ago FROM earlier e WHERE e.id = a.id;
    UPDATE replays r SET requested_at = requested_at - ago, finished_at = finished_at - ago
        FROM earlier e WHERE e.replay = r.id;
    UPDATE jobs j SET started_at = started_at - ago, finished_at = finished_at - ago
        FROM earlier e WHERE e.replay = j.replay AND j.trigger = 'replay';
    UPDATE attempts a SET started_at = started_at - ago, finished_at = finished_at - ago
        FROM earlier e WHERE e.replay = a.replay;
"""


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--all"]
    main(Path(given[0] if given else "docs/screenshots"), whole="--all" in sys.argv)
