"""docs/protocol.md against the code: whole tables, sentences with names, and nothing stale of what is generated."""

import ast
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from docs.generate import schemas, sentences, server_bodies
from docs.generate.__main__ import COMMAND, stale
from osmosis_ai.rollout import RolloutServerSettings, create_app
from osmosis_ai.rollout.core.results import Outcome
from osmosis_ai.rollout.core.settings import RolloutClientSettings
from server import agent_loop

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")


def test_what_is_generated_is_as_the_code_says() -> None:
    assert [str(path.relative_to(ROOT)) for path, _ in stale()] == [], f"run: {COMMAND}"


def test_the_limits_have_the_defaults_of_the_settings() -> None:
    fields = {**RolloutServerSettings.model_fields, **RolloutClientSettings.model_fields}
    rows = re.findall(r"^\| [^|]+ \| (`[A-Z_`; ]+`) \| ([0-9; ]+) \|", PAGE, re.MULTILINE)
    said = {
        name: float(default)
        for names, defaults in rows
        for name, default in zip(re.findall(r"[A-Z_]+", names), defaults.split("; "), strict=True)
    }
    assert len(said) > 12
    assert said == {name: fields[name.removeprefix("CLIENT_").lower()].default for name in said}


def test_each_schema_stands_in_the_list() -> None:
    folder = ROOT / "docs/schemas"
    listed = re.findall(r"^- \[(.+)\]\(\1\)$", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.schema.json"))


def codes_in_the_source() -> set[str]:
    """Third argument of a ``RefusedError``, or ``code`` of a body that is made in place."""
    codes = set()
    package = ROOT / "sdk/src/osmosis_ai/rollout"
    for file in (*(package / "server").glob("*.py"), package / "wire/loopback.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="RefusedError"), args=[_, _, ast.Constant(value=str(code)), *_]):
                    codes.add(code)
                case ast.Dict(keys=[*_, ast.Constant(value="code")], values=[*_, ast.Constant(value=str(code))]):
                    codes.add(code)
    return codes


def test_the_table_of_codes_is_complete() -> None:
    assert set(schemas.ERROR_CODES) == codes_in_the_source() - {"no_metrics"}  # of GET /metrics, outside the protocol


def test_openapi_lists_every_status() -> None:
    paths = create_app(agent_loop).openapi()["paths"]
    listed = {
        path: {int(status) for status in operation["responses"]}
        for path, operations in paths.items()
        for operation in operations.values()
    }
    of_any = {200, 403, 500, 503}
    of_id = {"status, cancel": set[int](), "cancel": set[int](), "": set[int]()}
    for status, when in schemas.ERROR_CODES.values():
        whose = when.partition(":")[0] if when.startswith(("status", "cancel:")) else ""
        of_id[whose].add(status.value)

    assert listed == {
        "/health": of_any,
        "/ready": of_any,
        "/metrics": {*of_any, 401, 404},
        "/platform/health": {*of_any, 401, 404},
        "/v1/rollout/init": {202, 401, 422, *of_id[""]},
        "/v1/rollout/{rollout_id}": {*of_any, 401, 405, *of_id["status, cancel"]},
        "/v1/rollout/{rollout_id}/cancel": {*of_any, 401, 202, *of_id["status, cancel"], *of_id["cancel"]} - {200},
        "/v1/rollout/cancel": {*of_any, 202, 400, 401, 408, 413, 415, 422} - {200},
        "/rollout": {202, 401, 422, *of_id[""]},
        "/rollout/{rollout_id}/result": {*of_any, 401, 404, 422},
        "/rollout/cancel": {*of_any, 400, 401, 408, 413, 415, 422},
    }
    for operations in paths.values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    Draft202012Validator.check_schema(response["content"]["application/json"]["schema"])


def test_the_states_are_those_of_the_code() -> None:
    declared = server_bodies.RolloutView.model_json_schema()["properties"]["state"]["enum"]

    assert set(declared) == schemas.states()


def test_every_outcome_is_explained() -> None:
    assert re.findall(r"^\| `(\w+)` \| (?:COMPLETED|ERROR) \|", PAGE, re.MULTILINE) == [item.value for item in Outcome]


def test_every_schema_is_linked_and_every_message_has_its_table() -> None:
    linked = set(re.findall(r"schemas/([\w-]+)\.schema\.json", PAGE))

    assert linked | {"error"} == set(schemas.MESSAGES)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A server MUST answer.", "has no name"),
        ("| 200 | MUST go on |", "has no name"),
        ('It MUST come. It SHOULD go.<sup id="a-1">a-1</sup>', "has no name"),
        ('It MUST come, and SHOULD go.<sup id="a-1">a-1</sup>', "a-1 says"),
        ('It comes.<sup id="a-1">a-1</sup>', "a-1 says"),
        ('It MUST come.<sup id="a-1">a-1</sup> It MUST go.<sup id="a-1">a-1</sup>', "stands twice"),
    ],
)
def test_a_sentence_that_binds_somebody_has_one_name_and_one_level(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        list(sentences.sentences(f"## 1. Way\n\n{text}\n"))


def test_a_sentence_is_read_with_its_section_and_level() -> None:
    item = '- First. A [server](x.md) MAY\n  rest.<sup id="a-1">a-1</sup>'
    row = '| 200 | MUST go on<sup id="a-2">a-2</sup> |'
    page = f"## 2. Way\n\n{item}\n\n{row}\n"
    assert [(one.id, one.level, one.section, one.text) for one in sentences.sentences(page)] == [
        ("a-1", "MAY", "2", "A server MAY rest."),
        ("a-2", "MUST", "2", "200: MUST go on"),
    ]
