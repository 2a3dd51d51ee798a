"""One root cause is one failure, with its consequences under it; each failure tells what it is about."""

import asyncio
import fnmatch
import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from servers.judging import judged
from servers.mutants import MUTANTS
from servers.serving import serving
from servers.small import Json, Rollout, SmallServer
from starlette.responses import Response

from rollout_conformance import KitOptions, Report, Result, Status, run, select
from rollout_conformance.cases import SOME
from rollout_conformance.root_causes import RESTS_ON, with_causes
from rollout_conformance.strict_json import first_difference
from rollout_conformance.usual_causes import (
    A_PAGE,
    FEW_CONNECTIONS,
    KEY_KEPT,
    MADE_ANEW,
    NO_ROOM,
    NOT_DELIVERED,
    NOT_ON_RECORD,
    OFFERED_ONCE,
    TAKEN_FOR_CUT_OFF,
    WITHOUT_TIME,
    cause_of,
    usual_cause,
)

CHECKS = {check.id: check for check in select()}


def failure(check_id: str, reason: str = "", subjects: Iterable[str] = ()) -> Result:
    return Result(CHECKS[check_id], Status.FAILED, reason or f"expected {check_id}", subjects=frozenset(subjects))


def causes(*results: Result) -> dict[str, str]:
    return {result.check.id: result.cause for result in with_causes(results)}


def test_a_failure_that_takes_another_promise_for_granted_follows_from_it() -> None:
    found = causes(failure("retries.server_error"), failure("retries.aborted"), failure("retries.aborted_key"))
    assert found == {"retries.server_error": "", "retries.aborted": "retries.server_error"} | {
        "retries.aborted_key": "retries.server_error"
    }
    assert (
        causes(failure("retries.aborted"), failure("retries.aborted_key"))["retries.aborted_key"] == "retries.aborted"
    )


def test_a_consequence_has_the_hint_of_its_cause_and_none_of_its_own() -> None:
    own = replace(failure("callbacks.every", subjects=["wire.behind"]), usually=OFFERED_ONCE)
    root, alone = failure("wire.behind"), failure("ids.odd")
    found = {one.check.id: cause_of(one) for one in with_causes([own, root, alone])}
    assert found == {
        "callbacks.every": usual_cause("wire.behind"),
        "wire.behind": usual_cause("wire.behind"),
        "ids.odd": usual_cause("ids.odd"),
    }
    [by_itself] = with_causes([own])
    assert cause_of(by_itself) == OFFERED_ONCE


def test_what_was_not_exercised_for_want_of_another_stands_under_it_where_that_failed() -> None:
    lacking = replace(failure("drain.cut_off"), status=Status.NOT_EXERCISED, cause="drain.killed")
    assert causes(failure("drain.killed"), lacking) == {"drain.killed": "", "drain.cut_off": "drain.killed"}
    assert causes(lacking) == {"drain.cut_off": ""}


def test_what_fails_in_some_of_its_cases_is_no_cause_of_another_failure() -> None:
    some = replace(failure("retries.server_error"), usually=f"{SOME}: so with 599, not with 500")
    assert causes(some, failure("retries.page", "another"))["retries.page"] == ""


def test_an_audit_follows_from_the_checks_whose_rollouts_it_is_about_if_all_of_them_failed() -> None:
    audit = failure("callbacks.once", subjects=["idempotency", "delivery.cut"])
    idempotency, delivery = failure("idempotency.two_ids"), failure("delivery.cut")
    assert causes(idempotency, audit, delivery)["callbacks.once"] == "idempotency.two_ids"
    assert causes(idempotency, audit)["callbacks.once"] == ""


def test_what_nearly_all_rely_on_is_the_cause_of_what_fails_with_its_rollouts() -> None:
    shape = failure("completed.shape", "expected a result", ["init.nulls", "ids.odd"])
    assert causes(failure("ids.odd"), shape) == {"ids.odd": "completed.shape", "completed.shape": ""}
    assert causes(failure("ids.text"), shape)["ids.text"] == ""
    assert causes(failure("ids.odd"), failure("init.nulls"), shape)["completed.shape"] in ("init.nulls", "ids.odd")


def test_failures_that_say_the_same_but_for_numbers_and_quotes_are_one() -> None:
    one = failure("init.accepted", "expected 202 to an init; got 500: {'detail': 'a 17'}")
    other = failure("ids.odd", "expected 202 to an init; got 500: {'detail': 'b 9'}")
    assert causes(one, other) == {"init.accepted": "", "ids.odd": "init.accepted"}
    assert causes(one, failure("ids.odd", "expected 202 to an init; got no answer"))["ids.odd"] == ""


def test_results_that_are_made_anew_are_one_failure_wherever_they_are_seen() -> None:
    anew, kept = (replace(failure(one), usually=MADE_ANEW) for one in ("drain.refused_same", "drain.kept"))
    assert causes(anew, kept) == {"drain.refused_same": "", "drain.kept": "drain.refused_same"}
    assert causes(anew, failure("drain.kept"))["drain.kept"] == ""


def test_what_ended_is_told_from_what_is_built_anew() -> None:
    cut_off = [replace(failure(one), usually=TAKEN_FOR_CUT_OFF) for one in ("drain.results", "drain.kept")]
    assert causes(*cut_off)["drain.kept"] == "drain.results"
    assert causes(replace(cut_off[0], usually=MADE_ANEW), cut_off[1])["drain.kept"] == ""


def test_a_key_that_what_was_refused_has_kept_is_a_matter_of_a_full_server() -> None:
    kept = [replace(failure(one), usually=KEY_KEPT) for one in ("init.bounds", "ids.odd")]
    assert causes(*kept) == {"init.bounds": "", "ids.odd": "init.bounds"}
    found = causes(*kept, failure("load.overload"))
    assert found == {"init.bounds": "load.overload", "ids.odd": "load.overload", "load.overload": ""}
    lost = replace(failure("callbacks.every", subjects=["init.bounds", "ids.odd", "load.overload"]), usually=KEY_KEPT)
    assert set(causes(lost, *kept, replace(failure("load.overload"), usually=KEY_KEPT)).items()) == {
        ("callbacks.every", "load.overload"),
        *found.items(),
    }


def test_a_refusal_that_says_no_time_is_a_matter_of_a_full_server() -> None:
    without = [replace(failure(one), usually=WITHOUT_TIME) for one in ("init.bounds", "ids.odd")]
    found = causes(*without, failure("load.overload"))
    assert found == {"init.bounds": "load.overload", "ids.odd": "load.overload", "load.overload": ""}


def test_a_call_that_does_not_come_is_a_matter_of_what_holds_up_others() -> None:
    held = failure("chat.default_limits", "expected a result; got none within 60 s")
    assert causes(held, failure("load.beside_paused"))["chat.default_limits"] == "load.beside_paused"
    full = replace(failure("chat.default_limits"), usually=NO_ROOM)
    assert causes(full, failure("load.beside_paused"))["chat.default_limits"] == "load.beside_paused"
    in_vain = failure("load.beside_paused", "expected a result of it; got none within 60 s")
    assert causes(held, in_vain)["chat.default_limits"] == ""


def test_a_call_after_the_result_is_no_second_run() -> None:
    order = failure("callbacks.order", subjects=["idempotency.after_error", "state.cancel"])
    assert causes(failure("idempotency.after_error"), order)["idempotency.after_error"] == "callbacks.order"


def test_a_result_that_waits_for_another_is_a_matter_of_who_delivers() -> None:
    names = ("idempotency.other_ids", "callbacks.every", "load.beside_owed")
    waits = [replace(failure(name), usually=NOT_DELIVERED) for name in names]
    full = replace(failure("drain.killed"), usually=NO_ROOM)
    assert causes(*waits, full) == {
        **dict.fromkeys((*names[:-1], "drain.killed"), "load.beside_owed"),
        "load.beside_owed": "",
    }
    in_vain = failure(
        "delivery.twice", "expected the result again after 500 twice; got none within 60 s (2 deliveries)"
    )
    assert causes(in_vain, *waits)["delivery.twice"] == "load.beside_owed"
    assert causes(in_vain, failure("load.beside_owed"))["delivery.twice"] == ""
    assert causes(waits[0], full, failure("load.beside_owed")) == dict.fromkeys(
        ("idempotency.other_ids", "drain.killed", "load.beside_owed"), ""
    )


def test_what_waits_where_calls_wait_for_a_connection_is_a_matter_of_the_pool() -> None:
    few = replace(failure("load.concurrent"), usually=FEW_CONNECTIONS)
    in_vain = [failure(name, "expected a result; got none within 60 s") for name in ("callbacks.key", "errors.told")]
    late = [*in_vain, replace(failure("idempotency.after_error"), usually=NO_ROOM)]
    paused = failure("load.beside_paused", "expected a result; got none within 60 s")
    owed = replace(failure("load.beside_owed"), usually=NOT_DELIVERED)
    found = causes(*late, few, paused, owed)
    assert found.pop("load.concurrent") == ""
    assert set(found.values()) == {"load.concurrent"}
    assert causes(*late, failure("load.concurrent"))["callbacks.key"] == ""
    assert causes(failure("callbacks.key", "another"), few)["callbacks.key"] == ""


def test_an_answer_that_is_cut_off_is_one_matter_with_a_connection_that_is_reset_within_it() -> None:
    some = replace(failure("delivery.cut"), usually=f"{SOME}: it fails for one; it holds for another")
    cut_off = failure("wire.cut_body", "another")
    assert causes(some, cut_off) == {"delivery.cut": "wire.cut_body", "wire.cut_body": ""}
    assert causes(failure("delivery.cut"), cut_off) == {"delivery.cut": "", "wire.cut_body": "delivery.cut"}


def test_what_was_not_on_record_yet_is_a_matter_of_what_a_kill_loses() -> None:
    newest, killed = (replace(failure(name), usually=NOT_ON_RECORD) for name in ("state.newest", "drain.killed"))
    assert causes(newest, killed) == {"state.newest": "drain.killed", "drain.killed": ""}
    assert causes(failure("state.newest", "another"), killed)["state.newest"] == ""


def test_a_page_that_is_taken_for_the_trainers_word_is_one_matter_though_in_some_cases() -> None:
    paused = replace(failure("retries.pause"), usually=A_PAGE)
    page = replace(failure("retries.page"), usually=f"{SOME}: so with a 404 page, not with 405 'no'")
    assert causes(paused, page) == {"retries.pause": "retries.page", "retries.page": ""}
    assert causes(failure("retries.pause"), page)["retries.pause"] == ""


def test_an_init_sent_again_after_a_hang_up_is_a_repeated_init() -> None:
    found = causes(failure("init.hang_up"), failure("idempotency.after_completion"))
    assert found == {"init.hang_up": "idempotency.after_completion", "idempotency.after_completion": ""}


def test_nothing_follows_from_what_rests_on_it() -> None:
    every = [failure(name, "the same", [name] if "callbacks" in name else ()) for name in CHECKS]
    for result in with_causes(every):
        assert result.cause == "" or CHECKS[result.cause] is not result.check
    assert all(root in CHECKS for _, root in RESTS_ON)


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, "a[0].b 1, then 2"),
        ({"a": 1, "b": 2}, {"a": 1}, "b 2, then nothing"),
        ({"a": 1}, {"a": 1.0}, "a 1, then 1.0"),
        ({"a": [1]}, {"a": [1, 2]}, "a of 1 items, then 2"),
        ({"a": "x" * 200 + "y"}, {"a": "x" * 200 + "z"}, f"a from character 180: '{'x' * 20}y', then '{'x' * 20}z'"),
        (
            {"a": "cafe\u0301"},
            {"a": "caf\u00e9"},
            "a 'cafe\u0301', then 'caf\u00e9'; at character 3: U+0065 U+0301, then U+00E9",
        ),
        ({"a": "x\ufe0fy"}, {"a": "xy"}, "a 'x\ufe0fy', then 'xy'; at character 1: U+FE0F, then nothing"),
        ({"a": "x  y"}, {"a": "x y"}, "a 'x y', then 'x y'; at character 2: U+0020, then nothing"),
    ],
)
def test_two_that_read_alike_are_told_apart_by_where_they_differ(one: Json, other: Json, where: str) -> None:
    assert first_difference(json.dumps(one).encode(), json.dumps(other).encode()) == where


def test_documents_that_differ_in_bytes_alone_are_told_apart_too() -> None:
    assert first_difference(b'{"a": 1}', b'{"a":1}') == "byte 5: b'{\"a\": 1}', then b'{\"a\":1}'"


class KnowsNoKeys(SmallServer):
    """Runs every init, whether it was sent before or not."""

    async def accept(self, init: Json) -> Response:
        rollout = Rollout(init, "")
        self.spawn(self.play(rollout))
        return Response(json.dumps(self.reply(init)).encode(), 202, media_type="application/json")


class AnswersTwice(SmallServer):
    """Delivers two results that read alike."""

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        await super().deliver(rollout, result)
        await super().deliver(rollout, result | {"metrics": None})


async def _judged(server: SmallServer, *only: str) -> Report:
    async with serving(server) as url:
        return await run(KitOptions(url, settle_seconds=0.2), select(only))


@pytest.mark.slow
def test_a_server_with_ten_connections_has_one_failure_and_its_consequences() -> None:
    # Results that are not answered hold all connections, too.
    checks = select(["load.concurrent", "load.beside_owed", "delivery.persistent"])
    report = asyncio.run(judged(MUTANTS["has-ten-connections"].server(), checks, timeout_seconds=8.0))
    assert len(report.failures) > 1
    assert {result.cause or result.check.id for result in report.failures} == {"load.concurrent"}


@pytest.mark.slow
def test_a_server_without_idempotency_has_one_failure_and_its_consequences() -> None:
    groups = ("idempotency", "callbacks", "chat.append_only", "completed.messages")
    report = asyncio.run(_judged(KnowsNoKeys(), *groups))
    assert len(report.failures) > 5
    assert {result.cause or result.check.id for result in report.failures} == {"idempotency.while_running"}
    [root] = [result for result in report.failures if not result.cause]
    assert root.sent.startswith('POST /v1/rollout/init {"rollout_id": "kit-')
    assert root.seen.startswith("the init: 202, 202; ")


def test_two_results_that_read_alike_say_where_they_differ() -> None:
    [result] = asyncio.run(_judged(AnswersTwice(), "callbacks.once")).failures
    assert "which differ at metrics {" in result.reason
    assert ", then None" in result.reason


def test_what_a_failure_follows_from_stands_for_itself() -> None:
    order = list(CHECKS)
    failed = {name: failure(name, "expected a result; got none") for name in order}
    # Two that do not rest on one another have nothing but their words in common.
    for pattern, root in RESTS_ON:
        for other in fnmatch.filter(order, pattern):
            found = causes(*(failed[name] for name in sorted({root, other}, key=order.index)))
            assert all(not found[cause] for cause in found.values() if cause), found
            assert "" in found.values(), found


def test_of_all_failures_at_once_one_stands_for_itself() -> None:
    found = causes(*(failure(name, "expected a result; got none") for name in CHECKS))
    assert all(not found[cause] for cause in found.values() if cause)
    assert "" in found.values()
