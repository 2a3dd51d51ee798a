"""The viewer in a real browser: clicked through, driven by keys, live, offline, and on hostile traces."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.fake_trainer import FakeTrainer
from support.processes import own_environment
from support.rollouts import INIT, ScriptedAgent, client_of, init_body, raising, settings_of, tool
from support.traces import TraceMaker, answer, call, calling, saying, write_random_traces
from support.viewer import ROWS

from osmosis_ai.cli import main
from osmosis_ai.rollout.server.app import create_app

pytestmark = browser_tests()

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\x1b[31mred\x1b[0m \u202eevil\u202c javascript:alert(3)"


def shown(page: Browser) -> int:
    return int(page.text(".shown").split(" of ")[0].replace(",", ""))


@pytest.mark.usefixtures("view")
class TestClicking:
    def test_the_table_tells_which_failed_and_why_without_a_click(self, page: Browser) -> None:
        assert shown(page) == 60
        failed = int(page.evaluate("document.querySelector('.card.bad .value').textContent"))
        assert failed > 0
        reasons = page.evaluate("[...document.querySelectorAll('.reason .count')].map(e => Number(e.textContent))")
        assert sum(reasons) == failed
        page.click(".card.bad")
        page.wait_for(f"{ROWS}.length === {failed}")
        assert page.evaluate(f"{ROWS}.every(row => row.querySelector('.why.error').textContent.length > 5)")

    def test_a_reason_a_bar_and_a_search_filter(self, page: Browser) -> None:
        page.click(".reason")
        count = int(page.evaluate("document.querySelector('.reason .count').textContent"))
        page.wait_for(f"{ROWS}.length === {count}")
        page.click(".filter")
        page.wait_for("document.querySelector('.shown').textContent.startsWith('60 of')")
        page.click("figure g[tabindex='0'] .hit")
        page.wait_for("document.querySelector('.filter')")
        assert 0 < shown(page) < 60
        page.press("Escape")
        page.click("#search")
        page.type("step0-000007")
        page.wait_for(f"{ROWS}.length === 1")
        assert "step0-000007" in page.text(".row")

    def test_a_status_is_found_by_its_name_and_by_what_the_page_calls_it(self, page: Browser) -> None:
        for said, status in (("failed", "ERROR"), ("error", "ERROR"), ("completed", "COMPLETED")):
            page.click("#search")
            page.type(f"status:{said}")
            page.wait_for(f"{ROWS}.length && {ROWS}.every(row => row.rollout.status === '{status}')")
            page.press("Escape")
            page.press("Escape")
            page.wait_for("document.querySelector('.shown').textContent.startsWith('60 of')")

    def test_a_header_sorts_both_ways(self, page: Browser) -> None:
        seen = []
        for _ in range(2):
            page.click(".c-duration button")
            seen.append(page.evaluate(f"{ROWS}.map(row => row.rollout.duration).filter(ms => ms !== null)"))
        assert seen[0] == sorted(seen[0], reverse=True)
        assert seen[1] == sorted(seen[1])
        assert page.evaluate("document.querySelector('.head .c-duration').getAttribute('aria-sort')") == "ascending"

    def test_a_rollout_opens_with_timeline_conversation_and_raw_events(self, page: Browser) -> None:
        page.click(".card.bad")
        page.wait_for(f"{ROWS}.every(row => row.querySelector('.chip').textContent === 'Failed')")
        page.click(".row")
        page.wait_for("document.querySelector('.conversation')")
        assert page.text(".problem")
        lanes = page.evaluate("[...document.querySelectorAll('.lane-name')].map(e => e.textContent)")
        assert {"Queue", "Model", "Tools"} <= set(lanes)
        assert page.evaluate("document.querySelectorAll('.call .result').length > 0")
        page.click("#tab-Events")
        page.click(".raw summary")
        page.wait_for("document.querySelector('.raw pre')")
        assert '"event": "trace_start"' in page.text(".raw pre")
        page.click("#close")
        page.wait_for("document.querySelector('#detail').hidden")


@pytest.mark.usefixtures("view")
class TestKeys:
    def test_all_of_it_works_without_a_mouse(self, page: Browser) -> None:
        page.press("j")
        page.press("j")
        page.press("k")
        page.press("j")
        chosen = page.wait_for("document.querySelector('.row.selected').rollout.id")
        assert chosen == page.evaluate(f"{ROWS}[1].rollout.id")
        page.press("Enter")
        page.wait_for("document.querySelector('.conversation')")
        assert page.text("#detail h2") == chosen
        page.press("j")
        page.wait_for(f"document.querySelector('#detail h2').textContent === {ROWS}[2].rollout.id")
        page.press("Escape")
        page.wait_for("document.querySelector('#detail').hidden")
        page.press("e")
        page.wait_for(f"{ROWS}.every(row => row.rollout.failed)")
        page.press("Escape")
        page.wait_for("document.querySelector('.shown').textContent.startsWith('60 of')")
        page.press("/")
        page.type("no such rollout")
        page.wait_for("!document.querySelector('#empty').hidden")
        page.press("Escape")
        page.press("Escape")
        page.wait_for("document.querySelector('.shown').textContent.startsWith('60 of')")
        page.press("?")
        page.wait_for("document.querySelector('dialog').open")
        page.press("Escape")
        page.wait_for("!document.querySelector('dialog').open")

    def test_the_theme_changes_and_stays(self, page: Browser) -> None:
        page.prefer("light")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.press("t")
        dark = page.wait_for("getComputedStyle(document.body).backgroundColor")
        assert dark != light
        page.call("Page.reload")
        page.wait_for(f"document.readyState === 'complete' && {ROWS}.length > 0")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
        page.press("t")
        page.wait_for(f"getComputedStyle(document.body).backgroundColor === '{light}'")

    def test_a_phone_shows_all_of_it_without_scrolling_sideways(self, page: Browser) -> None:
        page.resize(390, 844, mobile=True)
        page.call("Page.reload")
        page.wait_for(f"document.readyState === 'complete' && {ROWS}.length > 0")
        fits = "document.documentElement.scrollWidth <= window.innerWidth"
        assert page.evaluate(fits)
        page.click(".card.bad")
        page.click(".row")
        page.wait_for("document.querySelector('.conversation')")
        assert page.evaluate(fits)
        assert page.evaluate("document.querySelector('#detail').getBoundingClientRect().width === window.innerWidth")


async def test_it_follows_a_server_that_runs(view: Path, page: Browser) -> None:
    with FakeTrainer() as trainer:
        app = create_app(
            ScriptedAgent(raising(ValueError("live failure")), tools=[tool()]),
            settings=settings_of(),
            debug_dir=str(view / "2"),
        )
        async with client_of(app) as client:
            await client.post(INIT, json=init_body("live-1", server_url=trainer.url))
            await trainer.result("live-1")
    page.wait_for("document.querySelector('.shown').textContent.startsWith('61 of')")
    page.click("#search")
    page.type("live-1")
    page.wait_for(f"{ROWS}.length === 1")
    assert "ValueError: live failure" in page.text(".row")
    page.press("Escape")
    page.click(".row")
    assert "What is 2 + 2?" in page.text(".conversation")  # though its result has no messages


class TestReport:
    def report(self, tmp_path: Path) -> str:
        path = tmp_path / "report.html"
        assert main(["view", str(tmp_path / "traces"), "-o", str(path)]) == 0
        shutil.rmtree(tmp_path / "traces")
        return path.as_uri()

    def test_it_works_from_a_file_alone(self, page: Browser, tmp_path: Path) -> None:
        write_random_traces(tmp_path / "traces", 30)
        page.open(self.report(tmp_path))
        page.wait_for(f"{ROWS}.length > 0 && document.querySelector('.live').textContent === 'report'")
        page.click(".card.bad")
        page.click(".row")
        page.wait_for("document.querySelector('.conversation')")
        assert page.evaluate("performance.getEntriesByType('resource').length") == 0

    @pytest.mark.parametrize("first", [0, 1], ids=["as agents count now", "as they did"])
    def test_an_agents_own_turns_stand_beside_those_of_the_sdk(self, page: Browser, tmp_path: Path, first: int) -> None:
        maker = TraceMaker("r1").start("What is 1 + 2?")
        for turn in (1, 2):
            maker.add("pre_llm", turn=turn - 1 + first, num_messages=2 * turn)
            maker.turn(turn, saying("#### 3"))
        maker.end().write(tmp_path / "traces")
        page.open(self.report(tmp_path))
        page.wait_for(f"{ROWS}.length === 1 && document.querySelector('.live').textContent === 'report'")
        page.click(".row")
        page.wait_for("document.querySelector('.conversation')")
        page.click("#tab-Events")
        page.wait_for("document.querySelector('.raw')")
        named = "[...document.querySelectorAll('.raw summary')].map(one => one.textContent)"
        lines = [line for line in page.evaluate(named) if "pre_llm" in line or "chat_start" in line]
        assert [line.partition("turn ")[2] for line in lines] == ["1", "1", "2", "2"]

    def test_the_parts_of_rewards_are_means_with_spreads_and_facts_of_a_rollout(
        self, page: Browser, tmp_path: Path
    ) -> None:
        for number, accuracy in enumerate((0.0, 1.0)):
            parts = {"accuracy": accuracy, "<b>\u202eformat": 0.5}
            told = {"outcome": "success", "reward_components": parts}
            TraceMaker(f"r{number}").start("2 + 2?").end(reward=accuracy, extra_fields=told).write(tmp_path / "traces")
        page.open(self.report(tmp_path))
        page.wait_for(f"{ROWS}.length === 2")
        cards = page.evaluate("[...document.querySelectorAll('.card.part')].map(e => e.textContent)")
        assert cards == ["0.5 ± 0.5mean accuracy ± sd", "0.5 ± 0.0mean <b>\u2039U+202E\u203aformat ± sd"]
        page.click(".row")
        page.wait_for("document.querySelector('.fact.part')")
        facts = page.evaluate("[...document.querySelectorAll('.fact.part')].map(e => e.textContent)")
        assert sorted(facts) in (["<b>\u2039U+202E\u203aformat0.5", f"accuracy{n}"] for n in ("0", "1"))
        assert "tokens in + out" in page.evaluate("[...document.querySelectorAll('.fact dt')].map(e => e.innerText)")

    def test_hostile_text_is_text(self, page: Browser, tmp_path: Path) -> None:
        maker = TraceMaker("r\u202e<b>1</b>").start(HOSTILE, metadata={"deep": HOSTILE})
        reply = calling(call(1, HOSTILE, a=HOSTILE)) | {"content": HOSTILE, "name": HOSTILE}
        maker.turn(1, reply, [answer(1, HOSTILE + "x" * 1_000_000)], outcome=HOSTILE)
        maker.turn(2, saying("[" * 100_000)).add("log", deep={"a": HOSTILE}, **{HOSTILE: 1})
        maker.end(status="ERROR", error_message=HOSTILE, finish_reason=HOSTILE, extra_fields={"outcome": HOSTILE})
        maker.rollout_id = "hostile"
        maker.write(tmp_path / "traces")
        page.open(self.report(tmp_path))
        page.wait_for(f"{ROWS}.length === 1 && document.querySelector('.live').textContent === 'report'")
        page.click(".row")
        page.wait_for("document.querySelector('.conversation')")
        assert page.evaluate("document.querySelectorAll('img, #detail script, b b').length") == 0
        seen = page.text("#detail")
        assert "<img src=x onerror=alert(1)>" in seen
        assert "␛[31m" in seen
        assert "\x1b" not in seen
        assert "\u202e" not in page.text("body")
        assert len(seen) < 50_000
        page.click(".more")
        page.wait_for("document.querySelector('#detail').textContent.length > 100000")
        page.click("#tab-Events")
        page.evaluate("document.querySelectorAll('.raw').forEach(details => { details.open = true })")
        page.wait_for("document.querySelectorAll('.raw pre').length === document.querySelectorAll('.raw').length")


SLIPS = """
import time

from osmosis_ai.rollout import RolloutAgentLoop
from osmosis_ai.rollout.trainer import ScriptedPolicy


def deepest(table):
    return {"offices": 3}[table]


class Viewed(RolloutAgentLoop):
    name = "viewed"

    def get_tools(self, request):
        return []

    async def run(self, ctx):
        how, messages = ctx.request.metadata["how"], list(ctx.request.messages)
        reply = await ctx.chat(messages, **({} if how == "ignores" else ctx.request.completion_params))
        messages.append(reply.message)
        if how == "raises":
            deepest("employees")
        if how == "forgets":
            ctx.chat(messages).message
        if how == "rewrites":
            messages[-1] = {**reply.message, "content": "cleaned up"}
        if how == "blocks":
            time.sleep(2.5)
        return ctx.complete(messages, reward={"reward": 0.75, "a_long_name_of_a_part_of_the_reward": -0.25})


agent_loop = Viewed()
policy = ScriptedPolicy(lambda messages: "The answer is 42.")
"""


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(SLIPS.splitlines(), start=1) if text in line)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_failures_and_slips_of_real_runs_say_where_and_what_to_do(page: Browser, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "agent.py").write_text(SLIPS)
    hows = ("fine", "raises", "forgets", "rewrites", "blocks", "ignores")
    rows = [json.dumps({"user_prompt": f"Do {how}", "ground_truth": "-", "how": how}) for how in hows]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    run = [
        sys.executable,
        "-m",
        "osmosis_ai",
        "trainer",
        "-m",
        "agent:agent_loop",
        "-d",
        "rows.jsonl",
        "--log",
        "traces",
    ]
    subprocess.run(
        [*run, "--policy", "agent:policy"], cwd=tmp_path, env=own_environment(), capture_output=True, check=False
    )
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.prefer(scheme)
    page.open((tmp_path / "report.html").as_uri())
    page.wait_for(f"{ROWS}.length === {len(hows)} && document.querySelector('.live').textContent === 'report'")
    overflowing = (
        "[...document.querySelectorAll('.card, .fact, .reason')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    )
    assert page.evaluate(f"{overflowing}.map(e => e.textContent)") == []
    deepest = f"at agent.py:{line_of('offices')} in deepest"
    assert deepest in page.evaluate("[...document.querySelectorAll('.reason .place')].map(e => e.textContent)")

    def told(how: str) -> str:
        row = f"{ROWS}.find(row => row.rollout.id.endsWith('-{hows.index(how)}-0'))"
        page.evaluate(f"{row}.click()")
        page.wait_for(f"document.querySelector('#detail h2').textContent.endsWith('-{hows.index(how)}-0')")
        page.wait_for("document.querySelector('.conversation')")
        assert page.evaluate(f"{overflowing}.map(e => e.textContent)") == []
        return str(
            page.evaluate("[...document.querySelectorAll('#detail .problem')].map(e => e.innerText).join(' | ')")
        )

    assert told("fine") == ""
    caller = f"at agent.py:{line_of('employees')} in Viewed.run"
    assert [*told("raises").split("\n")[-3:]] == ["KeyError: 'employees'", deepest, caller]
    assert "hint: an await is missing" in told("forgets")
    assert "messages[1], a reply of the model, was changed (content was 'The answer is 42.'" in told("rewrites")
    assert "The model had said:\nThe answer is 42." in page.evaluate("document.querySelector('.rewrite').innerText")
    assert f"blocked at agent.py:{line_of('time.sleep')} in Viewed.run, and every rollout with it" in told("blocks")
    assert "ignored the request's temperature: pass **ctx.request.completion_params" in told("ignores")
    assert page.evaluate("document.querySelector('.fact.part dt').title") == "a_long_name_of_a_part_of_the_reward"
