"""`dev.py mutations [--short] [WORDS ...]`: break each promise on purpose, and see a test fail.

Each breakage is made in a copy of the checkout. One that no test catches is a hole in the suite.
`--short` makes two of each promise, WORDS those whose description has them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_AT_ONCE = 2
_TIMEOUT_S = 900
_SHORT = 2
"""Breakages of each promise in the short form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One promise, broken."""

    promise: int
    """As the README numbers them."""
    what: str
    file: str
    old: str
    new: str
    caught_by: str
    """The test, as pytest names it below tests/."""


MUTATIONS = (
    Mutation(
        promise=4,
        what="an async call commits its effects before its job is known to be its own",
        file="workers/coroutines/effects.py",
        old="        woken = await greenlet_spawn(",
        new="        await self._driver.send(self._commit)\n        woken = await greenlet_spawn(",
        caught_by="integration/test_coroutines.py::"
        "test_one_whose_lease_was_lost_has_its_effects_rolled_back_and_no_other",
    ),
    Mutation(
        promise=5,
        what="an async call that swallows the cancellation of its time-out succeeds",
        file="workers/coroutines/calls.py",
        old="        if running.told is not None:\n            raise running.told\n",
        new="",
        caught_by="integration/test_coroutines.py::"
        "test_one_that_waits_too_long_is_cancelled_and_the_others_are_not",
    ),
    Mutation(
        promise=5,
        what="an open breaker holds no claim back",
        file="ingest/store/pipeline/breakers.py",
        old='MAY_RUN = f"(processor <> ALL({OPEN}) OR {IS_PROBE})"\n',
        new='MAY_RUN = f"(processor <> ALL({OPEN}) OR true OR {IS_PROBE})"\n',
        caught_by="integration/test_breaker.py::test_so_many_failures_in_a_row_park_the_processor",
    ),
    Mutation(
        promise=5,
        what="a call that swallows its time-out succeeds",
        file="workers/timeouts/signals.py",
        old="        if kind is None and self._raised is not None:\n",
        new="        if False and self._raised is not None:\n",
        caught_by="unit/test_timelimit.py::"
        "test_a_call_that_swallows_its_end_and_returns_has_ended_all_the_same",
    ),
    Mutation(
        promise=5,
        what="a call on a thread that swallows its time-out succeeds",
        file="workers/timeouts/deadlines.py",
        old="        if kind is None and self.told is not None:\n",
        new="        if False and self.told is not None:\n",
        caught_by="unit/test_deadlines.py::"
        "test_a_call_that_swallows_its_end_and_returns_has_ended_all_the_same",
    ),
    Mutation(
        promise=5,
        what="an old job behind all those that are looked at is told as a recovery",
        file="ingest/alerts/absence.py",
        old="_is_not_parked(facts, subject) and facts.state.counts_all_of(queue)",
        new="_is_not_parked(facts, subject)",
        caught_by="integration/test_alerts.py::"
        "test_an_old_job_behind_more_than_are_looked_at_is_no_recovery",
    ),
    Mutation(
        promise=5,
        what="what was in work when a breaker opened spends its attempt",
        file="ingest/store/pipeline/breaker_state.py",
        old="            uncounted.add(attempt.id)\n",
        new="",
        caught_by="integration/test_breaker.py::"
        "test_jobs_that_were_in_work_when_it_opened_spend_nothing",
    ),
    Mutation(
        promise=5,
        what="a probe whose worker was killed is waited for",
        file="ingest/store/pipeline/jobs.py",
        old="'retrying') AND attempt = CAST(:attempt AS integer)\n",
        new="'retrying')\n",
        caught_by="integration/test_breaker.py::"
        "test_a_probe_whose_worker_is_killed_is_not_waited_for",
    ),
    Mutation(
        promise=5,
        what="a success leaves the failures before it counted",
        file="ingest/store/pipeline/breakers.py",
        old="    WHERE b.processor = :processor AND b.failures > 0\n",
        new="    WHERE b.processor = :processor AND b.failures < 0\n",
        caught_by="integration/test_breaker.py::test_a_success_begins_the_count_anew",
    ),
    Mutation(
        promise=5,
        what="attempts of a long transaction are missing in the sums of their hour for ever",
        file="ingest/store/pipeline/activity_sums.py",
        old="_SUMMED_AGAIN = timedelta(hours=3)\n",
        new="_SUMMED_AGAIN = timedelta(0)\n",
        caught_by="integration/test_activity_sums.py::test_what_comes_after_a_sum_was_made_is_told",
    ),
    Mutation(
        promise=8,
        what="of several conversations the newest messages of the first one are followed",
        file="ingest/store/search/related.py",
        old="        ) AS newest ORDER BY place DESC LIMIT {FOLLOWED}",
        new="        ) AS newest LIMIT {FOLLOWED}",
        caught_by="integration/test_bounded_counts.py::"
        "test_of_several_conversations_the_newest_messages_of_all_are_followed",
    ),
    Mutation(
        promise=5,
        what="a resolved failure that returns stays resolved",
        file="ingest/store/failures/lifecycle.py",
        old="    if group.state is State.RESOLVED and _has_returned(group, seen, had_it):\n",
        new="    if group.state is State.MUTED and _has_returned(group, seen, had_it):\n",
        caught_by="integration/test_failure_groups.py::"
        "test_a_resolved_failure_that_returns_is_open_again",
    ),
    Mutation(
        promise=5,
        what="an attempt that ran when a failure was resolved opens it again",
        file="ingest/store/failures/lifecycle.py",
        old="        began > group.resolved_at\n",
        new="        seen.last_at > group.resolved_at and began\n",
        caught_by="integration/test_failure_groups.py::"
        "test_an_attempt_that_began_before_it_was_resolved_is_no_return",
    ),
    Mutation(
        promise=5,
        what="a failure resolves itself while its replay waits",
        file="ingest/store/failures/settling.py",
        old="            SELECT * FROM dead UNION ALL SELECT * FROM waiting WHERE attempt > 0\n",
        new="            SELECT * FROM dead\n",
        caught_by="integration/test_failure_groups.py::"
        "test_a_failure_resolves_itself_once_everything_of_it_has_succeeded",
    ),
    Mutation(
        promise=5,
        what="a failed attempt is in no group",
        file="ingest/store/pipeline/jobs.py",
        old="        SELECT id, attempt FROM held WHERE (CAST(:counts AS boolean[]))[place]\n",
        new="        SELECT id, attempt FROM held WHERE false\n",
        caught_by="integration/test_failure_groups.py::"
        "test_the_first_failures_of_two_workers_at_once_make_one_group",
    ),
    Mutation(
        promise=4,
        what="a destination is told of an event under another id in each attempt",
        file="workers/destinations.py",
        old="                event.idempotency_key,\n",
        new='                f"{event.idempotency_key}:{event.attempt}",\n',
        caught_by="acceptance/test_destinations.py::"
        "test_a_request_is_as_documented_and_has_one_id_in_every_attempt_and_replay",
    ),
    Mutation(
        promise=4,
        what="a transaction is open while a destination's answer is awaited",
        file="workers/batches.py",
        old="            took_s = self.call_function(processor, [call], self.engine)\n",
        new="            with Effects(self.engine):\n"
        "                took_s = self.call_function(processor, [call], self.engine)\n",
        caught_by="integration/test_outside.py::"
        "test_no_transaction_is_open_during_a_call_and_its_success_is_recorded",
    ),
    Mutation(
        promise=4,
        what="a destination sends to whatever address its name leads to",
        file="ingest/outgoing.py",
        old="    if not is_public(str(address[0])):\n",
        new="    if not is_public(str(address[0])) and family == 0:\n",
        caught_by="unit/test_public_addresses.py::"
        "test_a_name_is_resolved_once_and_what_is_connected_to_is_what_was_checked",
    ),
    Mutation(
        promise=4,
        what="an address in IPv6 that stands for a private one is taken for public",
        file="ingest/public_addresses.py",
        old="for part in (address, *_meant(address)))\n",
        new="for part in (address,))\n",
        caught_by="unit/test_public_addresses.py::"
        "test_an_address_that_is_not_the_internets_is_not_public",
    ),
    Mutation(
        promise=3,
        what="two relays make a run of a periodic processor each",
        file="ingest/store/pipeline/schedules.py",
        old=" FOR UPDATE SKIP LOCKED",
        new="",
        caught_by="integration/test_periodic.py::test_ten_relays_at_once_make_a_run_once",
    ),
    Mutation(
        promise=3,
        what="a due time runs again after the clock was set back",
        file="ingest/store/pipeline/schedules.py",
        old="    if connection.execute(_IS_KNOWN, known).first() is not None:\n",
        new="    if connection.execute(_IS_KNOWN, known).first() == ():\n",
        caught_by="integration/test_periodic.py::"
        "test_a_clock_that_goes_forth_and_back_repeats_no_run",
    ),
    Mutation(
        promise=5,
        what="a periodic processor runs for each due time that was missed",
        file="workers/schedules.py",
        old='    if schedule.missed == "all":\n',
        new='    if schedule.missed != "none":\n',
        caught_by="integration/test_periodic.py::"
        "test_after_a_day_without_relays_the_rule_says_what_runs",
    ),
    Mutation(
        promise=5,
        what="a run begins while the one before is unfinished",
        file="workers/relay/schedules.py",
        old="return not stored.overlap and store.has_unfinished_run",
        new="return stored.overlap and store.has_unfinished_run",
        caught_by="integration/test_periodic.py::"
        "test_a_run_does_not_begin_while_an_earlier_one_is_replayed",
    ),
    Mutation(
        promise=8,
        what="a change that is sent again under its Idempotency-Key is made again",
        file="ingest/store/keyed_requests.py",
        old="    WHERE known.began_at < now() - CAST(:kept AS interval)\n",
        new="    WHERE known.began_at < now() - CAST(:kept AS interval) OR true\n",
        caught_by="integration/test_keyed_requests.py::"
        "test_the_same_request_again_gets_the_same_answer",
    ),
    Mutation(
        promise=8,
        what="a form of the console that is sent again is done again",
        file="ingest/console/pages/site.py",
        old="            if keyed is None:\n",
        new="            if keyed is not None:\n                outcome, is_again = act(), False\n"
        "            elif keyed is None:\n",
        caught_by="integration/test_forms_once.py::"
        "test_the_same_form_again_does_nothing_more_and_shows_what_the_first_did",
    ),
    Mutation(
        promise=8,
        what="a cancelled replay takes back a job that a worker has begun",
        file="ingest/store/pipeline/jobs.py",
        old="        WHERE replay = :replay AND state = 'pending'\n"
        "          AND CAST(requeued_from",
        new="        WHERE replay = :replay AND state <> 'running'\n"
        "          AND CAST(requeued_from",
        caught_by="integration/test_taking_back.py::"
        "test_what_has_not_begun_is_what_it_was_after_a_cancel",
    ),
    Mutation(
        promise=8,
        what="a resumed replay repeats a job that has run",
        file="ingest/store/bulk/next_jobs.py",
        old='"coalesce(jobs.replay, 0) < :operation"',
        new='"true"',
        caught_by="integration/test_taking_back.py::"
        "test_a_resumed_replay_goes_on_without_repeating_what_has_run",
    ),
    Mutation(
        promise=3,
        what="a viewer reads what somebody wrote in a title",
        file="ingest/sources/titles.py",
        old='text=part.masked if part.kind == "private" else hide(part.text)',
        new="text=hide(part.text)",
        caught_by="unit/test_titles.py",
    ),
    Mutation(
        promise=1,
        what="an encrypted body is not bound to its row",
        file="ingest/encryption/keys.py",
        old="    return _BOUND_LABEL + delivery.bytes\n",
        new="    return _BOUND_LABEL\n",
        caught_by="unit/test_body_keys.py",
    ),
    Mutation(
        promise=5,
        what="an event whose key a worker lacks spends attempts",
        file="workers/outcome.py",
        old="        outcome=Outcome.RELEASED,\n        retry_in_s=WAIT_FOR_KEY_S,\n",
        new="        outcome=Outcome.FAILED,\n        retry_in_s=WAIT_FOR_KEY_S,\n",
        caught_by="integration/test_encryption.py::"
        "test_without_the_key_an_event_waits_and_spends_nothing",
    ),
    Mutation(
        promise=1,
        what="a run that changes keys brings an erased body back",
        file="ingest/store/encryption/rotation.py",
        old="      AND deliveries.body IS NOT NULL AND deliveries.body_key IS NOT DISTINCT FROM"
        " fresh.key\n",
        new="",
        caught_by="integration/test_encryption.py::"
        "test_what_is_erased_dropped_or_changed_under_a_run_stays_so",
    ),
    Mutation(
        promise=1,
        what="a body is encrypted while a worker is alive that could not read it",
        file="ingest/store/encryption/gate.py",
        old="    if worker is not None:\n",
        new="    if worker is None and worker is not None:\n",
        caught_by="integration/test_encryption.py::"
        "test_nothing_is_encrypted_while_older_code_could_meet_it",
    ),
    Mutation(
        promise=1,
        what="the answer does not wait for the commit",
        file="ingest/receiver/writer.py",
        old="        await self.submit(delivery)\n",
        new="        self.submit(delivery)\n",
        caught_by="integration/test_writer.py::"
        "test_what_append_returns_from_is_committed_and_hinted",
    ),
    Mutation(
        promise=1,
        what="nor does that of a delivery which comes whole",
        file="ingest/receiver/fastpath.py",
        old="                committed.add_done_callback("
        "lambda done: settle(done.exception(), decision.key_id))\n",
        new="                settle(None)\n",
        caught_by="unit/test_receiver_ways.py::test_both_ways_answer_alike",
    ),
    Mutation(
        promise=1,
        what="a commit whose wait for the standby was cancelled is taken for kept",
        file="ingest/store/engine.py",
        old='        if notice.source_function == "SyncRepWaitForLSN":\n',
        new='        if notice.source_function == "NoSuchFunction":\n',
        caught_by="integration/test_replication.py::test_a_wait_that_is_cancelled_is_answered_503",
    ),
    Mutation(
        promise=1,
        what="a commit in doubt is repeated by a statement that waits for no standby",
        file="ingest/store/engine.py",
        old='(_WRITE_SOMETHING if is_repeat else "")',
        new='""',
        caught_by="integration/test_replication.py::"
        "test_a_wait_that_is_terminated_is_waited_for_again",
    ),
    Mutation(
        promise=1,
        what="rows that are there already fail the second try of a commit in doubt",
        file="ingest/store/pipeline/deliveries.py",
        old="queue, dispatch_grace_s, is_repeat=is_repeat\n",
        new="queue, dispatch_grace_s, is_repeat=False\n",
        caught_by="integration/test_writer.py::"
        "test_what_was_committed_before_the_answer_was_lost_is_there_once",
    ),
    Mutation(
        promise=1,
        what="a role's synchronous_commit = off is left as it is",
        file="ingest/store/engine.py",
        old="    WHEN 'off' THEN 'on' ELSE",
        new="    WHEN 'off' THEN 'off' ELSE",
        caught_by="integration/test_writer.py",
    ),
    Mutation(
        promise=1,
        what="nobody asks whether the commit was durable",
        file="ingest/store/engine.py",
        old='        if value in ("off", "unknown"):\n',
        new='        if value == "unknown":\n',
        caught_by="integration/test_writer.py",
    ),
    Mutation(
        promise=1,
        what="a failed commit is answered 200",
        file="ingest/receiver/writer.py",
        old="            _refuse(batch, unavailable)\n            raise unavailable from None",
        new="            self._committed(batch)\n            raise unavailable from None",
        caught_by="integration/test_writer.py",
    ),
    Mutation(
        promise=1,
        what="an event of a batch is left out",
        file="ingest/receiver/decide.py",
        old="        for position, element in enumerate(elements)\n",
        new="        for position, element in enumerate(elements[1:])\n",
        caught_by="unit/test_decide.py",
    ),
    Mutation(
        promise=2,
        what="the relay takes it that nothing is to be done while only deliveries wait",
        file="ingest/store/pipeline/relay_work.py",
        old="FROM ingest.unadmitted ORDER BY queue DESC, hint_at DESC LIMIT 1",
        new="FROM ingest.unadmitted WHERE false LIMIT 1",
        caught_by="integration/test_relay_work.py",
    ),
    Mutation(
        promise=2,
        what="the relay does not look for deliveries that were never admitted",
        file="workers/relay/sweep.py",
        old="deliveries=self._dispatch_deliveries()",
        new="deliveries=0",
        caught_by="acceptance/test_outages.py::"
        "test_a_redis_that_forgets_everything_costs_only_time",
    ),
    Mutation(
        promise=2,
        what="the relay does not look for jobs that are due",
        file="workers/relay/sweep.py",
        old="jobs=self._dispatch_jobs()",
        new="jobs=0",
        caught_by="integration/test_relay.py::test_a_retry_is_hinted_when_it_is_due_and_not_before",
    ),
    Mutation(
        promise=2,
        what="hints are sent on the event loop, before the answer",
        file="ingest/dispatch.py",
        old="        self._waiting.extend(deliveries)\n        self._wake.set()\n",
        new="        self._send(list(deliveries))\n",
        caught_by="acceptance/test_outages.py::"
        "test_without_redis_answers_are_200_and_as_quick_and_it_comes_back_empty",
    ),
    Mutation(
        promise=3,
        what="events are looked for, then inserted",
        file="ingest/store/pipeline/admission.py",
        old=" AND past_event IS NULL\n        ORDER BY source, event_id\n"
        "        ON CONFLICT (source, event_id) DO NOTHING\n",
        new=" AND past_event IS NULL AND NOT EXISTS (SELECT FROM ingest.events e"
        " WHERE (e.source, e.event_id) = (batch.source, batch.event_id))\n"
        "        ORDER BY source, event_id\n",
        caught_by="integration/test_admit.py",
    ),
    Mutation(
        promise=3,
        what="another body under a known id is not flagged",
        file="ingest/store/pipeline/admission.py",
        old="               CASE WHEN is_fresh THEN b.fingerprint",
        new="               false AND CASE WHEN is_fresh THEN b.fingerprint",
        caught_by="integration/test_admit.py",
    ),
    Mutation(
        promise=3,
        what="retention removes an event while an older snapshot may admit its duplicate",
        file="ingest/store/retention/passes.py",
        old="    while writers:\n",
        new="    while False:\n",
        caught_by="integration/test_retention_races.py::"
        "test_a_snapshot_from_before_the_event_is_remembered",
    ),
    Mutation(
        promise=4,
        what="the fence is removed",
        file="ingest/store/pipeline/jobs.py",
        old="        SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:attempts AS integer[]))\n"
        "    )) IS TRUE\n",
        new="        SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:attempts AS integer[]))\n"
        "    )) IS NOT NULL\n",
        caught_by="integration/test_executor.py",
    ),
    Mutation(
        promise=6,
        what="a job runs before another of its ordering key that was received earlier",
        file="ingest/store/pipeline/jobs.py",
        old='          AND o.job = {ordering.HEAD.format(key="o.key")}\n',
        new="",
        caught_by="integration/test_order.py::"
        "test_what_commits_late_goes_before_what_has_not_begun",
    ),
    Mutation(
        promise=6,
        what="a job is placed although an earlier delivery is not admitted",
        file="ingest/store/pipeline/ordering.py",
        old="         WHERE replay IS NULL AND queue <> ",
        new="         WHERE false AND queue <> ",
        caught_by="integration/test_order.py::"
        "test_nothing_runs_before_what_was_received_earlier_is_admitted",
    ),
    Mutation(
        promise=6,
        what="ending a job wakes none of its ordering key",
        file="ingest/store/pipeline/jobs.py",
        old="    return wake(connection, keys, hint_s=hint_s)\n",
        new="    return []\n",
        caught_by="integration/test_order.py::test_one_key_with_many_jobs_holds_nobody_else",
    ),
    Mutation(
        promise=6,
        what="a job runs behind one of its ordering key that has failed",
        file="workers/batches.py",
        old="        if job.key not in self.stopped:\n",
        new="        if True:\n",
        caught_by="integration/test_order_runs.py::"
        "test_what_follows_a_failure_is_given_back_and_has_spent_no_attempt",
    ),
    Mutation(
        promise=6,
        what="a key is let go of while a job of its run is at work",
        file="ingest/store/pipeline/ordering.py",
        old="          AND {_IS_IDLE}\n",
        new="",
        caught_by="integration/test_order_runs.py::"
        "test_a_part_of_a_run_that_is_rescued_alone_lets_nobody_else_have_the_key",
    ),
    Mutation(
        promise=4,
        what="more jobs of a processor run at once than its limit",
        file="ingest/store/pipeline/pulling.py",
        old="        at_most = min(at_most, bounds.concurrency - running)\n",
        new="        at_most = min(at_most, bounds.concurrency)\n",
        caught_by="integration/test_limits.py::"
        "test_threads_run_no_more_at_once_than_the_concurrency",
    ),
    Mutation(
        promise=4,
        what="more jobs of a processor start in a window than its rate",
        file="ingest/rates.py",
        old="for at, count in log if at + self.window_s > now]",
        new="for at, count in log if at + self.window_s / 2 > now]",
        caught_by="unit/test_rates.py::test_no_window_ever_has_more_starts_than_the_rate",
    ),
    Mutation(
        promise=5,
        what="a key with many jobs holds up the others that wait for a limit",
        file="ingest/store/pipeline/pulling.py",
        old="    turn = key.turn + starts\n",
        new="    turn = key.turn\n",
        caught_by="integration/test_limits.py::test_a_flood_of_one_key_holds_up_no_other",
    ),
    Mutation(
        promise=4,
        what="a probe starts whatever the limits of its key are",
        file="ingest/store/pipeline/pulling.py",
        old="    if key is None or not _budget(line.bounds, key, wanted=1, now=now):\n",
        new="    if key is None:\n",
        caught_by="integration/test_limits_combined.py::"
        "test_a_probe_waits_for_the_limits_of_its_key_and_is_tried_again",
    ),
    Mutation(
        promise=5,
        what="a processor's jobs wait for ever behind a slow one of the same message",
        file="workers/executor.py",
        old="        is_in_time = not has_begun or self._clock() < until\n",
        new="        is_in_time = self._clock() < until\n",
        caught_by="integration/test_executor.py::"
        "test_a_message_that_used_up_its_time_works_on_each_processors_jobs",
    ),
    Mutation(
        promise=5,
        what="a silent source is told to deliver again",
        file="ingest/alerts/lifecycle.py",
        old="    if absence is Absence.OVER:\n",
        new="    if absence is not Absence.GONE:\n",
        caught_by="integration/test_alerts.py::"
        "test_a_quiet_source_recovers_only_once_it_delivers_again",
    ),
    Mutation(
        promise=5,
        what="an erasure cancels the order for somebody else beside the person",
        file="ingest/store/erasure/records.py",
        old=" AND erasures.persons <@ done.persons\n",
        new="\n",
        caught_by="integration/test_erasures_in_the_console.py::"
        "test_an_order_that_asks_for_more_than_was_erased_is_not_cancelled",
    ),
    Mutation(
        promise=4,
        what="effects are committed before the job is finished",
        file="workers/transaction.py",
        old="        jobs.finish(self.db, succeeded, notes)\n        self.db.commit()\n",
        new="        self.db.commit()\n        jobs.finish(self.db, succeeded, notes)\n"
        "        self.db.commit()\n",
        caught_by="integration/test_executor.py::"
        "test_the_effects_of_a_worker_that_stalled_past_its_lease_roll_back",
    ),
    Mutation(
        promise=4,
        what="a processor may commit",
        file="workers/guard.py",
        old="        if self.guarded:\n",
        new="        if False:\n",
        caught_by="integration/test_effects.py",
    ),
    Mutation(
        promise=4,
        what="leases are not renewed",
        file="workers/recovery/leases.py",
        old="            if held:\n                self._renew",
        new="            if False:\n                self._renew",
        caught_by="integration/test_executor.py::test_a_lease_is_renewed_while_its_processor_works",
    ),
    Mutation(
        promise=5,
        what="a failed call is not rolled back",
        file="workers/transaction.py",
        old="            self._send(_UNDO)\n",
        new="            pass\n",
        caught_by="integration/test_executor.py::"
        "test_effects_roll_back_with_failure_and_the_neighbours_keep_theirs",
    ),
    Mutation(
        promise=5,
        what="failed attempts are not kept",
        file="ingest/store/pipeline/jobs.py",
        old="AS text), replay\n        FROM held\n    ), ungrouped AS (",
        new="AS text), replay\n        FROM held WHERE false\n    ), ungrouped AS (",
        caught_by="integration/test_executor.py",
    ),
    Mutation(
        promise=5,
        what="a dead process's whole batch is blamed",
        file="workers/recovery/rescue.py",
        old="ran_it or (wreck.running is None and job.trigger",
        new="True or (wreck.running is None and job.trigger",
        caught_by="integration/test_relay.py::test_a_dead_process_leaves_exactly_one_guilty_job",
    ),
    Mutation(
        promise=6,
        what="whatever comes last wins",
        file="workers/processors/merge.py",
        old="    return f\"({place.format(row='excluded')}) > ",
        new="    return f\"true OR ({place.format(row='excluded')}) > ",
        caught_by="integration/test_read_model.py",
    ),
    Mutation(
        promise=5,
        what="what a sender never sends again is refused without a word",
        file="ingest/receiver/intake.py",
        old="            self._metrics.count_possible_loss(source.slug)\n",
        new="            pass\n",
        caught_by="unit/test_possible_losses.py",
    ),
    Mutation(
        promise=7,
        what="a full backlog is the sender's fault",
        file="ingest/receiver/responses.py",
        old="    StorageUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,\n",
        new="    StorageUnavailable: HTTPStatus.BAD_REQUEST,\n",
        caught_by="acceptance/test_receiver_fuzz.py",
    ),
    Mutation(
        promise=7,
        what="any signature will do",
        file="ingest/sources/awalchat/source.py",
        old="        if matched is None:\n",
        new="        if False:\n",
        caught_by="unit/test_awalchat_signatures.py",
    ),
    Mutation(
        promise=7,
        what="any signature of another sender will do",
        file="ingest/sources/signatures.py",
        old="            if hmac.compare_digest(signature, digest):\n",
        new="            if True:\n",
        caught_by="unit/test_whatsapp.py",
    ),
    Mutation(
        promise=7,
        what="any signature of a described sender will do",
        file="ingest/sources/described/signature.py",
        old="                if hmac.compare_digest(candidate, expected):\n",
        new="                if True:\n",
        caught_by="unit/test_described_senders.py",
    ),
    Mutation(
        promise=8,
        what="a replay forgets the success before it",
        file="ingest/store/pipeline/jobs.py",
        old="        FROM chosen WHERE state = 'succeeded'\n",
        new="        FROM chosen WHERE false\n",
        caught_by="integration/test_replay.py::"
        "test_a_success_that_is_replayed_stays_in_the_history",
    ),
    Mutation(
        promise=3,
        what="a repetition of an event that retention removed keeps its body",
        file="ingest/store/pipeline/admission.py",
        old="""                   ELSE {past_events.short("b.fingerprint")} = b.past_fingerprint
               END AS gone
""",
        new="                   ELSE false\n               END AS gone\n",
        caught_by="integration/test_retention_and_erasure.py::"
        "test_a_duplicate_of_an_event_that_was_removed_before_the_person_was_erased_goes_at_once",
    ),
    Mutation(
        promise=3,
        what="what differs from a removed event is dropped",
        file="ingest/store/pipeline/admission.py",
        old="""                   ELSE {past_events.short("b.fingerprint")} = b.past_fingerprint
               END AS gone
""",
        new="                   ELSE true\n               END AS gone\n",
        caught_by="integration/test_retention_and_erasure.py::"
        "test_what_differs_from_a_removed_event_keeps_its_body",
    ),
    Mutation(
        promise=5,
        what="the console erases whoever was found, whatever is typed",
        file="ingest/console/services/erasures.py",
        old="not orders.names(connection, erasure, typed)",
        new="typed == ''",
        caught_by="integration/test_erasures_in_the_console.py::"
        "test_a_person_is_found_confirmed_and_erased",
    ),
    Mutation(
        promise=5,
        what="an order that is cancelled keeps whom it meant",
        file="ingest/store/erasure/records.py",
        old="    SET status = 'cancelled', identifiers = NULL,",
        new="    SET status = 'cancelled',",
        caught_by="integration/test_erasures_in_the_console.py::"
        "test_an_order_that_is_cancelled_erases_nobody_and_forgets_whom_it_meant",
    ),
    Mutation(
        promise=8,
        what="a replay takes a running job from its worker",
        file="ingest/store/pipeline/jobs.py",
        old="        WHERE jobs.id = requested.id AND chosen.state <> 'running'\n",
        new="        WHERE jobs.id = requested.id\n",
        caught_by="integration/test_replay.py::test_a_running_job_is_left_alone_and_said_so",
    ),
    Mutation(
        promise=5,
        what="the first rejected event of a source is no rise, and sets no alert off",
        file="ingest/receiver/metrics.py",
        old="for status in (_OK, _REJECTED)}",
        new="for status in (_OK,)}",
        caught_by="unit/test_monitoring.py::test_the_first_rejected_event_is_a_rise",
    ),
    Mutation(
        promise=5,
        what="a dead letter is told with what its error's message holds",
        file="ingest/sentry/client.py",
        old='        if not line.startswith("  "):\n            return\n',
        new="",
        caught_by="unit/test_trace_parts.py::test_no_message_is_taken_for_a_place",
    ),
    Mutation(
        promise=5,
        what="a statement is traced with the values in its text",
        file="workers/tracing/statements.py",
        old='"?", sql)',
        new="match[0], sql)",
        caught_by="unit/test_trace_parts.py::test_a_statement_is_sent_without_values",
    ),
    Mutation(
        promise=5,
        what="a retry that is due in an hour is told as behind",
        file="ingest/store/reports/behind.py",
        old="next_attempt_at <= now() AS is_due",
        new="true AS is_due",
        caught_by="integration/test_behind.py"
        "::test_a_storm_of_retries_and_a_slow_replay_are_not_behind_before_their_time",
    ),
    Mutation(
        promise=8,
        what="the replay of a named event repeats what has succeeded",
        file="ingest/store/bulk/selected.py",
        old='"jobs.state <> \'succeeded\'" if selection.leave_succeeded else "true"',
        new='"true"',
        caught_by="integration/test_replay.py"
        "::test_of_a_named_event_what_succeeded_is_left_alone_unless_it_is_asked_for",
    ),
    Mutation(
        promise=3,
        what="an edited copy is taken for the sender's own event",
        file="ingest/resending.py",
        old="        source=operator.SLUG,\n",
        new="        source=examined.origin.source,\n",
        caught_by="integration/test_resending.py"
        "::test_a_copy_runs_as_its_origins_and_is_no_event_of_the_sender",
    ),
    Mutation(
        promise=8,
        what="an erased person stays in the edited copies of their events",
        file="ingest/erasure/run.py",
        old="        made = copies.made_of(connection, sorted(named))\n",
        new="        made = copies.made_of(connection, [])\n",
        caught_by="integration/test_resending.py"
        "::test_copies_are_erased_with_their_origin_and_with_whom_they_name",
    ),
    Mutation(
        promise=8,
        what="a search that excludes takes bodies that nobody can read",
        file="ingest/store/search/body_conditions.py",
        old='"NOT " if self.excludes else ""',
        new='""',
        caught_by="integration/test_encryption.py"
        "::test_a_search_finds_the_same_in_clear_and_encrypted",
    ),
    Mutation(
        promise=7,
        what="requests that anybody can send fill the database, a row for each address",
        file="ingest/store/reports/refusal_counts.py",
        old="CASE WHEN is_known OR place <= :addresses THEN client ELSE '' END AS client",
        new="CASE WHEN is_known OR place > 0 THEN client ELSE '' END AS client",
        caught_by="integration/test_refusals.py"
        "::test_a_flood_from_many_addresses_costs_a_bounded_number_of_rows",
    ),
    Mutation(
        promise=8,
        what="a replay goes on counting the failures before it",
        file="ingest/store/pipeline/jobs.py",
        old="SET state = 'pending', trigger = 'replay', failures = 0, queue = :queue",
        new="SET state = 'pending', trigger = 'replay', queue = :queue",
        caught_by="integration/test_protocol.py::"
        "test_the_statements_do_what_the_model_says_step_by_step",
    ),
    Mutation(
        promise=5,
        what="a job is claimed before its time",
        file="ingest/store/pipeline/jobs.py",
        old="              AND state IN ('pending', 'retrying') AND next_attempt_at <= now()\n"
        "              AND {_MAY_RUN}",
        new="              AND state IN ('pending', 'retrying')\n              AND {_MAY_RUN}",
        caught_by="integration/test_protocol.py::"
        "test_the_statements_do_what_the_model_says_step_by_step",
    ),
)


def main() -> int:
    """Exit code 0: every breakage was caught."""
    chosen = _chosen(sys.argv[1:])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = list(pool.map(_run, chosen))
    for mutation, failed in zip(chosen, results, strict=True):
        by = ", ".join(failed[:2]) + (f" and {len(failed) - 2} more" if len(failed) > 2 else "")
        print(f"{'caught' if failed else 'MISSED'}  {mutation.promise}  {mutation.what}: {by}")
    return 0 if all(results) else 1


def _chosen(words: Sequence[str]) -> Sequence[Mutation]:
    if list(words) == ["--short"]:
        promises = sorted({mutation.promise for mutation in MUTATIONS})
        of = [[m for m in MUTATIONS if m.promise == promise] for promise in promises]
        return [mutation for mutations in of for mutation in mutations[:_SHORT]]
    return [m for m in MUTATIONS if not words or any(word in m.what for word in words)]


def _run(mutation: Mutation) -> Sequence[str]:
    """The tests that failed."""
    with tempfile.TemporaryDirectory(prefix="ingest-mutation-") as folder:
        copy = Path(folder) / "copy"
        # Compiled modules are copied too: they count for a source of the same time and size, which
        # the broken one is not.
        ignored = shutil.ignore_patterns(".git", ".venv*", ".ingest", ".*_cache", "node_modules")
        shutil.copytree(ROOT, copy, ignore=ignored)
        broken = copy / mutation.file
        text = broken.read_text()
        if text.count(mutation.old) != 1:
            raise SystemExit(f"{mutation.what}: {mutation.file} no longer has {mutation.old!r}")
        broken.write_text(text.replace(mutation.old, mutation.new))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-n0", "-q", "--no-header", "--tb=no"),
                # Importing schemathesis takes 0.6 s of CPU; only tests in a browser need it.
                *("-x", "-p", "no:cacheprovider", "-p", "no:schemathesis"),
                f"tests/{mutation.caught_by}",
            ],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise SystemExit(f"{mutation.what}: pytest itself failed\n{done.stdout[-3000:]}")
    return [
        line.split("::", 1)[1].split(" - ")[0]
        for line in done.stdout.splitlines()
        if line.startswith("FAILED")
    ]


if __name__ == "__main__":
    raise SystemExit(main())
