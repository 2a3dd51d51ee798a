"""Models that call no tool, call for ever or make no sense, and servers that answer anything: a row each, in one run.

What a row comes to is the table of ``docs/test-mode.md``. Once all is well, the same command with ``--resume`` asks
again for what failed, and for nothing else.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.adder_project import AGENT_OPTIONS, results_of, row, write_rows
from support.model_endpoint import HANG_UP, Answer, JsonObject, ModelEndpoint, refuse
from support.provider_wires import Model, adds_up
from support.providers import ENDPOINT, PROVIDERS, TIMEOUT_SECONDS, Provider, system_prompt_of

from osmosis_ai.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT_SECONDS)]  # LiteLLM takes seconds to load

AGENT = """
from osmosis_ai.rollout import RolloutAgentLoop, Toolbox, is_right


def add(a: float, b: float) -> float:
    "Add two numbers."
    return a + b


TOOLS = Toolbox(add)

class Adder(RolloutAgentLoop):
    name = "adder"

    def get_tools(self, request):
        return TOOLS.schemas

    async def run(self, ctx):
        messages, finish_reason = list(ctx.request.messages), "max_turns"
        for _ in range(ctx.request.max_turns):
            reply = await ctx.chat(messages)
            messages.append(reply.message)
            if not reply.tool_calls:
                finish_reason = reply.finish_reason
                break
            messages += await TOOLS.answer(ctx, reply.tool_calls)
        right = is_right(reply.content or "", ctx.request.metadata["ground_truth"])
        return ctx.complete(messages, finish_reason=finish_reason, reward=float(bool(right)))


adder = Adder()
"""
ARGUMENTS = '{"a": 1, "b": 2}'


def says(content: Any, finish_reason: str | None = None) -> Model:
    return lambda messages, tools: {"content": content} | ({"finish_reason": finish_reason} if finish_reason else {})


def calls(*given: tuple[str, str, Any], legacy: bool = False, for_ever: bool = False) -> Model:
    """Calls of (id, name, arguments), and then the answer."""

    def model(messages: list[JsonObject], tools: list[JsonObject]) -> JsonObject:
        if not for_ever and messages[-1]["role"] == "tool":
            return {"content": "#### 3"}
        functions = [{"name": name, "arguments": arguments} for _, name, arguments in given]
        if legacy:
            return {"content": None, "function_call": functions[0]}
        made = [
            {"id": f"{call_id}_{len(messages)}", "type": "function", "function": function}
            for (call_id, *_), function in zip(given, functions, strict=True)
        ]
        return {"content": None, "tool_calls": made}

    return model


Outcome = tuple[str, str | None]
RIGHT: Outcome = ("right", None)


def zero(reason: str) -> Outcome:
    return "zero", reason


def failed(kind: str) -> Outcome:
    return "failed", kind


MODELS: dict[str, tuple[Model, Outcome]] = {
    "adds up": (adds_up, RIGHT),
    "calls no tool": (says("I think it is 4."), zero("called no tool although 1 was offered")),
    "calls for ever": (calls(("c", "add", ARGUMENTS), for_ever=True), zero("stopped at max_turns")),
    "is cut off": (says("Let me th", "length"), zero("truncated at max_tokens")),
    "writes its calls": (says('<tool_call>{"name": "add"}</tool_call>'), zero("tool calls came as text")),
    "says nothing": (says(None), zero("ended with an empty reply, all of it is reasoning")),
    "is filtered": (says("", "content_filter"), failed("refused request")),
    "breaks off a call": (calls(("c", "add", '{"a": 1, "b')), RIGHT),
    "calls with a list": (calls(("c", "add", "[1, 2]")), RIGHT),
    "calls with an object": (calls(("c", "add", {"a": 1, "b": 2})), RIGHT),
    "calls with nothing": (calls(("c", "add", "")), RIGHT),
    "calls what is not there": (calls(("c", "sum", ARGUMENTS)), RIGHT),
    "calls no name": (calls(("c", "", ARGUMENTS)), RIGHT),
    "calls twice by one id": (calls(("c", "add", ARGUMENTS), ("c", "add", ARGUMENTS)), RIGHT),
    "has null for calls": (lambda *_: {"content": "#### 3", "tool_calls": None}, RIGHT),
    "has a list of no calls": (lambda *_: {"content": "#### 3", "tool_calls": []}, RIGHT),
}
OF_OPENAI: dict[str, tuple[Model, Outcome]] = {
    "calls as of old": (calls(("c", "add", ARGUMENTS), legacy=True), RIGHT),
    "answers in parts": (says([{"type": "text", "text": "#### "}, {"type": "text", "text": "3"}]), RIGHT),
    "answers in parts of another API": (says([{"type": "output_text", "text": "#### 3"}]), RIGHT),
    "answers in parts without a type": (says(["#### ", {"text": {"value": "3"}}]), RIGHT),
    "answers a number": (says(18), failed("malformed reply")),
    "answers no parts": (says([]), failed("malformed reply")),
    "is aborted": (says("Let me th", "abort"), failed("provider's server")),
    "is cancelled": (says("Let me th", "cancelled"), failed("provider's server")),
}
REPLIES: dict[str, tuple[Answer, Outcome]] = {
    "html": (Answer(b"<html>Welcome", headers={"Content-Type": "text/html"}), failed("malformed reply")),
    "nothing": (Answer(b""), failed("malformed reply")),
    "a list": (Answer(b"[]"), failed("malformed reply")),
    "no choices": (Answer(b'{"id": "x", "model": "m", "choices": []}'), failed("malformed reply")),
    "an error": (Answer(b'{"error": {"message": "out of memory"}}'), failed("provider's server")),
    "a bad gateway": (Answer(b"<html>Bad gateway", 502), failed("provider's server")),
    "a failure": (refuse(500), failed("provider's server")),
    "a refusal": (refuse(400), failed("refused request")),
    "too long": (refuse(400, "This model's maximum context length is 9 tokens."), failed("context window")),
    "hangs up": (HANG_UP, failed("connection")),
}
IN_PARTS = [name for name in OF_OPENAI if name.startswith("answers in parts")]
# What LiteLLM makes of some of them.
LITELLM: dict[str, dict[str, Outcome]] = {
    "openai": {
        "html": failed("provider's server"),
        "an error": failed("refused request"),
        "a list": failed("provider's server"),
        **dict.fromkeys(IN_PARTS, failed("malformed reply")),
    },
    "anthropic": {},
    "groq": {"an error": failed("malformed reply"), **dict.fromkeys(IN_PARTS, failed("malformed reply"))},
    "ollama": {"an error": failed("malformed reply"), "calls with a list": failed("malformed reply")},
    "endpoint": {},
}


Run = Callable[..., tuple[int, str, str]]
"""``osmosis test`` with a provider's stub and options: exit code, standard output, standard error."""


@pytest.fixture
def run(adder_project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    def test(provider: Provider, endpoint: ModelEndpoint, *options: str) -> tuple[int, str, str]:
        for name, value in provider.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        code = main(provider.arguments("test", endpoint, *options))
        return code, *capfd.readouterr()

    return test


def outcome_of(result: JsonObject) -> Outcome:
    if not result["success"]:
        return failed(result["error_kind"])
    return RIGHT if result["reward"] == 1.0 else zero(str(result["zero_reason"]).partition(" (")[0])


@pytest.mark.parametrize("name", LITELLM)
def test_a_row_comes_to_what_the_table_says_and_the_others_go_on(name: str, run: Run) -> None:
    provider: Provider = {**PROVIDERS, "endpoint": ENDPOINT}[name]
    models = MODELS | (OF_OPENAI if provider.path.endswith("/chat/completions") else {})
    expected = {key: outcome for key, (_, outcome) in {**models, **REPLIES}.items()} | LITELLM[name]
    Path("agent.py").write_text(AGENT)
    write_rows(*({**row(1, 2), "system_prompt": key} for key in expected))
    is_healed = False

    def answer(body: JsonObject) -> Answer:
        key = system_prompt_of(body)
        if key in REPLIES and not is_healed:
            return REPLIES[key][0]
        return provider.wire.answer(body, adds_up if is_healed else models.get(key, (says("ok"), RIGHT))[0])

    options = ["-o", "results.json", "--concurrency", "16", "--max-turns", "3"]
    with provider.stub(answer) as endpoint:
        code, out, err = run(provider, endpoint, *options)
        assert code == 1
        assert {
            key: outcome_of(result) for key, result in zip(expected, results_of()["results"], strict=True)
        } == expected
        for noise in ("Traceback", "Warning", "WARNING", "hint:", "agent.py", "site-packages"):
            assert noise not in out + err
        assert "Stopped early" not in out

        is_healed, before = True, len(endpoint.calls)
        assert run(provider, endpoint, *options, "--resume")[0] == 0
        asked = {system_prompt_of(call.body) for call in endpoint.calls[before + 1 :]}
    assert asked == {key for key, outcome in expected.items() if outcome[0] == "failed"}
    assert all(result["success"] for result in results_of()["results"])


@pytest.mark.parametrize("name", ["endpoint", "ollama"])
def test_one_that_dies_in_the_middle_stops_the_run_which_goes_on_when_it_is_back(name: str, run: Run) -> None:
    provider: Provider = {**PROVIDERS, "endpoint": ENDPOINT}[name]
    write_rows(*(row(number, 2) for number in range(8)))
    options = ["-o", "results.json", "--concurrency", "2"]
    with provider.stub() as endpoint:
        port = int(endpoint.url.rpartition(":")[2].partition("/")[0])
        endpoint.otherwise = lambda body: provider.wire.answer(body) if len(endpoint.calls) < 10 else HANG_UP
        code, out, _ = run(provider, endpoint, *options)
    assert code == 1
    assert out.count("Stopped early due to systemic provider error. Reason: The connection broke") == 1
    assert f"http://127.0.0.1:{port}" in out
    there = {result["row_index"] for result in results_of()["results"] if result["success"]}
    assert 2 <= len(there) < 8
    with provider.stub(port=port) as endpoint:
        code, out, _ = run(provider, endpoint, *options, "--resume")
        assert code == 0
        assert len(endpoint.calls) == 1 + 2 * (8 - len(there))
    assert f"{len(there)} of 8 runs are there" in out
    assert [result["reward"] for result in results_of()["results"]] == [1.0] * 8


class OneAtATime(BaseHTTPRequestHandler):
    """Closes each connection after its reply; five others may wait."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = ENDPOINT.wire.answer(body)
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *args: Any) -> None:
        pass


def test_a_server_that_handles_one_call_at_a_time_gets_through_all(adder_project: Path) -> None:
    write_rows(*(row(number, 2) for number in range(20)))
    with HTTPServer(("127.0.0.1", 0), OneAtATime) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/v1"
            options = ["--model", "m", "--base-url", url, "--concurrency", "16", "-q", "-o", "results.json"]
            assert main(["test", *AGENT_OPTIONS, *options]) == 0
        finally:
            server.shutdown()
            thread.join()
    assert [result["reward"] for result in results_of()["results"]] == [1.0] * 20
