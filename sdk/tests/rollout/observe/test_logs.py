import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, strategies as st
from support.fake_trainer import FakeTrainer
from support.measured_server import TESTS, measured_server
from support.plain_http import PLAIN
from support.processes import own_environment
from support.rollouts import init_body

from osmosis_ai.rollout.core.settings import LogFormat
from osmosis_ai.rollout.core.text import HIDDEN, MAX_REDACTED_CHARACTERS
from osmosis_ai.rollout.observe.logs import FIELDS, formatter
from osmosis_ai.rollout.observe.redaction import LOG_CONTEXT, LogContext, hide, redacted
from osmosis_ai.rollout.server.api_key import generate_api_key
from osmosis_ai.rollout.wire.listening import listen

HOSTILE = "a\n2026-01-01T00:00:00.000Z ERROR forged: line\r\x1b[31mred\x9b2J\u2028\u2029\u202e\x00\ud800"


def record_of(
    message: str, *arguments: Any, error: BaseException | None = None, rollout_id: str | None = None, fields: Any = None
) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("osmosis_ai.test", logging.WARNING, __file__, 1, message, arguments, exc_info)
    setattr(record, FIELDS, fields)
    if rollout_id is not None:
        record.rollout_id = rollout_id
    return record


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - with its traceback
        return caught


def text_of(record: logging.LogRecord) -> str:
    return formatter(LogFormat.TEXT).format(record)


def json_of(record: logging.LogRecord) -> dict[str, Any]:
    line = formatter(LogFormat.JSON).format(record)
    assert "\n" not in line
    fields: dict[str, Any] = json.loads(line)
    return fields


class TestText:
    def test_is_time_level_logger_and_message(self) -> None:
        time, level, rest = text_of(record_of("all of %d", 7)).split(maxsplit=2)
        assert (level, rest) == ("WARNING", "osmosis_ai.test: all of 7")
        assert time.endswith("Z")

    def test_names_the_rollout_where_the_message_does_not(self) -> None:
        assert text_of(record_of("over", rollout_id="r1")).endswith("over [rollout r1]")
        assert text_of(record_of("Rollout %a is over", "r1", rollout_id="r1")).endswith("'r1' is over")

    def test_an_exception_is_told_on_the_same_line(self) -> None:
        line = text_of(record_of("failed", error=raised(ValueError("first\nsecond"))))
        assert "\n" not in line
        assert "(ValueError: first\\nsecond; at observe/test_logs.py:" in line


class TestJson:
    def test_is_an_object_a_line(self) -> None:
        fields = json_of(record_of("all of %d", 7))
        assert fields.keys() == {"time", "level", "logger", "message"}
        assert (fields["level"], fields["logger"], fields["message"]) == ("warning", "osmosis_ai.test", "all of 7")

    def test_has_the_fields_of_the_event(self) -> None:
        fields = json_of(record_of("over", rollout_id="r1", fields={"reward": 0.5, "turns": 3}))
        assert (fields["rollout_id"], fields["reward"], fields["turns"]) == ("r1", 0.5, 3)

    def test_fields_cannot_pose_as_the_lines_own(self) -> None:
        fields = json_of(record_of("true", fields={"message": "false", "level": "debug"}))
        assert (fields["message"], fields["level"]) == ("true", "warning")

    def test_has_the_whole_traceback(self) -> None:
        fields = json_of(record_of("failed", error=raised(ValueError("why"))))
        assert fields["error"].startswith("ValueError: why")
        assert fields["traceback"].startswith("Traceback (most recent call last)")

    def test_writes_numbers_that_json_has_not_as_text(self) -> None:
        assert json_of(record_of("x", fields={"reward": float("nan")}))["reward"] == "nan"


class TestRolloutId:
    def test_comes_from_the_task_that_logs(self) -> None:
        def logged() -> dict[str, Any]:
            LOG_CONTEXT.set(LogContext("r7"))
            return json_of(record_of("x"))

        assert copy_context().run(logged)["rollout_id"] == "r7"
        assert "rollout_id" not in json_of(record_of("x"))

    def test_of_the_record_itself_comes_first(self) -> None:
        def logged() -> dict[str, Any]:
            LOG_CONTEXT.set(LogContext("r7"))
            return json_of(record_of("x", rollout_id="r8"))

        assert copy_context().run(logged)["rollout_id"] == "r8"


class TestInjection:
    @pytest.mark.parametrize(
        "record",
        [
            record_of(HOSTILE),
            record_of("%s", HOSTILE),
            record_of("x", rollout_id=HOSTILE),
            record_of("x", error=ValueError(HOSTILE)),
            record_of("x", fields={"field": HOSTILE}),
            record_of("%d", HOSTILE),
        ],
    )
    @pytest.mark.parametrize("log_format", LogFormat)
    def test_no_text_makes_another_line_or_a_control_character(
        self, record: logging.LogRecord, log_format: LogFormat
    ) -> None:
        line = formatter(log_format).format(record)
        line.encode()
        assert len(line.splitlines()) == 1
        assert line.isprintable()

    @given(st.text(st.characters()))
    def test_whatever_it_is(self, text: str) -> None:
        for log_format in LogFormat:
            line = formatter(log_format).format(record_of("%s", text, rollout_id=text))
            line.encode()
            assert len(line.splitlines()) == 1
            assert "\x1b" not in line
            assert "\x9b" not in line

    def test_a_line_is_bounded(self) -> None:
        assert len(text_of(record_of("x" * 10 * MAX_REDACTED_CHARACTERS))) <= MAX_REDACTED_CHARACTERS

    def test_a_message_that_cannot_be_formatted_is_told_all_the_same(self) -> None:
        assert "only one %s %s" in text_of(record_of("only one %s %s", "argument"))

    def test_an_exception_that_cannot_be_printed_is_told_by_its_type(self) -> None:
        class SilentError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        assert "(SilentError; at" in text_of(record_of("x", error=raised(SilentError())))


SECRET = "xJ3kQ9vLm2Wz8RtYb5Np"


class TestRedaction:
    @pytest.mark.parametrize(
        "text",
        [
            f"Authorization: Bearer {SECRET}",
            f"authorization: bearer   {SECRET}",
            f"{{'Authorization': 'Bearer {SECRET}'}}",
            f"headers=[(b'authorization', b'Bearer {SECRET}')]",
            f"Authorization: {SECRET}",
            f"Authorization: Basic {SECRET}==",
            f"GET /v1/rollout/r1?api_key={SECRET}&x=1",
            f"GET /?token={SECRET}",
            f"GET /?access_token={SECRET}",
            f'{{"api_key": "{SECRET}"}}',
            f'{{\\"api_key\\": \\"{SECRET}\\"}}',
            f"api_key='{SECRET}'",
            f"X-API-Key: {SECRET}",
            f"OPENAI_API_KEY={SECRET}",
            f"password={SECRET}",
            f"client_secret: {SECRET}",
            f"https://user:{SECRET}@trainer.example/v1",
            f"postgres://{SECRET}@host",
            f"the key sk-{SECRET} was refused",
            f"Incorrect API key provided: sk-proj-{SECRET}.",
            f"ghp_{SECRET}",
            f"eyJhbGciOiJIUzI1NiJ9.eyJ{SECRET}.{SECRET}",
        ],
    )
    def test_takes_out_what_looks_like_a_secret(self, text: str) -> None:
        assert SECRET not in redacted(text)
        assert HIDDEN in redacted(text)
        assert SECRET not in text_of(record_of("%s", text))
        assert SECRET not in text_of(record_of("x", error=raised(ValueError(text))))
        for record in (record_of("%s", text), record_of("x", error=raised(ValueError(text)), fields={"a": text})):
            assert SECRET not in json.dumps(json_of(record))

    @pytest.mark.parametrize(
        "text",
        [
            "max_tokens=512, prompt_tokens: 17",
            "The server has no room for another rollout.",
            "Rollout 'token-ring-7' ended: status=COMPLETED",
            "POST http://127.0.0.1:9/v1/chat/completions, attempt 1 of 1",
            "No API key: whoever reaches this port can start rollouts.",
            "user@example.org wrote",
            "bear with us",
        ],
    )
    def test_leaves_the_rest_alone(self, text: str) -> None:
        assert redacted(text) == text

    def test_takes_out_the_keys_that_the_server_makes(self) -> None:
        key = generate_api_key()
        assert key not in redacted(f"who sends {key} may come in")

    def test_takes_out_a_known_secret_whatever_it_looks_like(self) -> None:
        hide("plain words here")
        assert redacted("it said plain words here, twice") == f"it said {HIDDEN}, twice"

    def test_takes_out_the_callback_key_of_the_rollout_that_logs(self) -> None:
        def logged() -> str:
            LOG_CONTEXT.set(LogContext("r7", "callback words"))
            return redacted("it said callback words")

        assert copy_context().run(logged) == f"it said {HIDDEN}"

    @pytest.mark.parametrize("piece", ["a-", "token", "api_key=", "://", "Bearer ", "eyJ.", "a:/", "=", "secret-"])
    def test_takes_no_longer_for_a_text_made_to_be_slow(self, piece: str) -> None:
        started = time.process_time()
        redacted(piece * (2 * MAX_REDACTED_CHARACTERS // len(piece)))
        assert time.process_time() - started < 1


def events(text: str) -> list[dict[str, Any]]:
    """The JSON lines of ``osmosis serve``, its banner left out; any other line in between is a failure."""
    lines = text.splitlines()
    return [json.loads(line) for line in lines if line]


def post(port: int, body: Any, query: str = "") -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{port}/v1/rollout/init{query}", json=body, **PLAIN)


CALLBACK_KEY = "call back, will you?"


class TestServer:
    def run(self, directory: Path, trainer: FakeTrainer, *options: str) -> str:
        """The log of a server that ran one rollout that failed and one that did not."""
        with measured_server(directory, *options) as server:
            server.wait_until_serving()
            failing = {"raise": f"{HOSTILE[:-1]} Bearer {SECRET} {CALLBACK_KEY}"}
            post(server.port, init_body("bad\t1", server_url=trainer.url, metadata=failing, api_key=CALLBACK_KEY))
            post(server.port, init_body("good", server_url=trainer.url), f"?api_key={SECRET}")
            trainer.wait_for_result("bad\t1")
            trainer.wait_for_result("good")
            assert server.signal(signal.SIGTERM) == 0
            return server.stderr

    @pytest.mark.slow
    def test_writes_an_object_a_line(self, tmp_path: Path, trainer: FakeTrainer) -> None:
        log = self.run(tmp_path, trainer, "--log-format", "json")
        found = events(log)
        assert {"uvicorn.error", "uvicorn.access", "osmosis_ai.rollout.server.service"} <= {
            event["logger"] for event in found
        }
        (ended,) = [event for event in found if "ended:" in event["message"] and event["rollout_id"] == "good"]
        assert (ended["status"], ended["outcome"], ended["reward"]) == ("COMPLETED", "success", 1.0)
        accesses = [event for event in found if event["logger"] == "uvicorn.access" and "POST" in event["message"]]
        assert {event["rollout_id"] for event in accesses} == {"bad\t1", "good"}
        (failed,) = [event for event in found if event["level"] == "error"]
        assert failed["rollout_id"] == "bad\t1"
        assert failed["error"].startswith("RuntimeError: a\n")
        assert SECRET not in log
        assert CALLBACK_KEY not in log

    @pytest.mark.slow
    def test_writes_one_line_an_event_as_text(self, tmp_path: Path, trainer: FakeTrainer) -> None:
        log = self.run(tmp_path, trainer)
        lines = log.splitlines()
        assert all(line[:4].isdigit() and line.split()[1] in ("INFO", "WARNING", "ERROR") for line in lines)
        assert log.replace("\n", "").isprintable()
        assert len([line for line in lines if " ERROR " in line and "forged" in line]) == 1
        assert SECRET not in log
        assert CALLBACK_KEY not in log

    @pytest.mark.slow
    def test_the_level_is_the_sdks_too(self, tmp_path: Path, trainer: FakeTrainer) -> None:
        assert "INFO" not in self.run(tmp_path, trainer, "--log-level", "warning")


MAIN = "import uvicorn; from support.measured_app import app; uvicorn.run(app, host='127.0.0.1', fd={fd})"


class TestUvicorn:
    @contextmanager
    def started(self, directory: Path, *command: str, fd: int) -> Iterator[Path]:
        log = directory / "log.txt"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=directory,
                env=own_environment(PYTHONPATH=str(TESTS), OSMOSIS_ROLLOUT_SERVER_LOG_FORMAT="json"),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[fd],
            )
        try:
            yield log
        finally:
            process.terminate()
            assert process.wait(60) == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("way", ["command line", "uvicorn.run"])
    def test_lines_are_the_same_from_the_first_to_the_last(
        self, tmp_path: Path, trainer: FakeTrainer, way: str
    ) -> None:
        listener = listen("127.0.0.1", 0)
        port, fd = listener.getsockname()[1], listener.fileno()
        command = ["-m", "uvicorn", "support.measured_app:app", "--fd", str(fd)]
        if way == "uvicorn.run":
            command = ["-c", MAIN.format(fd=fd)]
        with self.started(tmp_path, *command, fd=fd) as log:
            assert post(port, init_body("r1", server_url=trainer.url)).status_code == 202
            trainer.wait_for_result("r1")
        listener.close()
        messages = [event["message"] for event in events(log.read_text())]
        assert messages[0].startswith("Started server process")
        assert messages[-1].startswith("Finished server process")
