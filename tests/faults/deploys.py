"""Bad deploys, poison, and clocks that disagree."""

import http.client
import json
from pathlib import Path
from random import Random

from tests.faults.effects import POISON_TYPE
from tests.faults.world import World
from tests.support.signing import signed_headers

POISONS = ("exit", "segfault", "loop", "stuck", "kill", "memory")
_MAY_SUCCEED = ("memory",)  # if the machine has it, and gives it in time
_STORED_WITHIN_S = 300
_FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)


def break_import(world: World, random: Random) -> None:
    """Deploy processors that cannot be imported, and mend them."""
    flag = world.flags / "import"
    flag.touch()
    try:
        for worker in world.fleet.named("worker"):
            worker.process.terminate()
        world.fleet.wait(random.uniform(4, 7))
    finally:
        flag.unlink()


def poison(world: World, random: Random) -> None:
    """Send one event of each kind of poison into the load."""
    for what in random.sample(POISONS, len(POISONS)):
        post_poison(world, what, random)
        world.fleet.wait(random.uniform(0, 1))


def post_poison(world: World, what: str, random: Random) -> None:
    """Send an event of one kind of poison."""
    data = {"id": random.randrange(10**12), "poison": what, "updated_at": "2024-01-20T10:00:00Z"}
    _post(world, {"event": POISON_TYPE, "timestamp": "2024-01-20T10:00:00Z", "data": data})


def check_poison(world: World) -> list[str]:
    """What is wrong with how poison was dealt with: it must spend its attempts and no other's."""
    with world.connect() as connection:
        rows = connection.execute(
            """
            SELECT convert_from(d.body, 'UTF8')::jsonb #>> '{data,poison}', j.state, j.attempt,
                   c.times
            FROM jobs j JOIN deliveries d ON d.id = j.event JOIN counters c ON c.event = j.event
            WHERE j.processor = 'poison' AND position('poison' IN convert_from(d.body, 'UTF8')) > 0
            """
        ).fetchall()
    wrong = []
    for what, state, attempt, times in rows:
        ended = state == "dead" or (what in _MAY_SUCCEED and state == "succeeded")
        if not ended or times != 1:
            wrong.append(f"{what}: {state} after {attempt} attempts, counted {times} times")
    return wrong if rows else ["no poison was taken"]


def faketime() -> Path | None:
    """The library that gives a process another clock, if it is installed."""
    return next((Path(path) for path in _FAKETIME if Path(path).exists()), None)


def skew_clocks(world: World, random: Random) -> None:
    """Restart one of each kind with a clock that is minutes off, and later with the right one."""
    library = faketime()
    assert library is not None
    kinds = ("receiver", "worker", "relay")
    for kind in kinds:
        # The sender's signatures are good for 5 minutes either way.
        minutes = random.choice((-4, -3, -2, 2, 3, 4))
        world.start(
            kind,
            1,
            {
                "LD_PRELOAD": str(library),
                "FAKETIME": f"{minutes:+d}m",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
        )
    world.fleet.wait(random.uniform(4, 8))
    for kind in kinds:
        world.start(kind, 1)


def step_clocks(world: World, random: Random) -> None:
    """Put the clocks of one of each kind forward and back by minutes, over and over, while it runs;
    later restart it with the right one."""
    library = faketime()
    assert library is not None
    clock = world.home / "clock"
    clock.write_text("+0m")
    kinds = ("receiver", "worker", "relay")
    for kind in kinds:
        world.start(
            kind,
            1,
            {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
        )
    try:
        for minutes in (4, -4, random.choice((-3, 3))):
            _put_clock(clock, minutes)
            world.fleet.until(
                lambda: _has_stored(world, minutes),  # noqa: B023 - called at once
                what=f"a delivery is stored whose clock is {minutes} minutes off",
                timeout_s=_STORED_WITHIN_S,
            )
            world.fleet.wait(random.uniform(0.5, 2))
    finally:
        for kind in kinds:
            world.start(kind, 1)


def _put_clock(clock: Path, minutes: int) -> None:
    written = clock.with_suffix(".new")
    written.write_text(f"{minutes:+d}m")
    written.rename(clock)


def _has_stored(world: World, minutes: int) -> bool:
    """Whether a receiver stored something just now by a clock that is so far off."""
    with world.connect() as connection:
        row = connection.execute(
            "SELECT true FROM deliveries"
            " WHERE received_at - now() - make_interval(mins => %s)"
            "       BETWEEN interval '-20 s' AND interval '20 s'"
            "  AND pg_xact_commit_timestamp(xmin) > now() - interval '20 s' LIMIT 1",
            [minutes],
        ).fetchone()
    return row is not None


def _post(world: World, envelope: dict[str, object]) -> None:
    """Until it is answered 200."""
    raw = json.dumps(envelope).encode()

    def taken() -> bool:
        client = http.client.HTTPConnection("127.0.0.1", world.port, timeout=5)
        try:
            client.request("POST", "/webhooks/awalchat", raw, signed_headers(raw))
            return client.getresponse().status == 200
        except OSError:
            return False
        finally:
            client.close()

    world.fleet.until(taken, what="poison is taken", timeout_s=30)
