"""Traces as a server writes them, made up: any number of rollouts that end in every way there is."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

JsonObject = dict[str, Any]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Does {name}.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
                "required": ["a", "b"],
            },
        },
    }
    for name in ("add", "multiply", "divide")
]
FAILURES = {
    "llm_error": "OsmosisServerError: HTTP 503 from the trainer after 4 attempts in 7.4 s",
    "tool_error": "ToolExecutionError: divide: b must not be 0",
    "timeout": "the rollout exceeded its time limit of 600 s",
    "agent_error": "KeyError: 'ground_truth'",
}


class TraceMaker:
    """Writes one rollout's events; ``time`` goes on with each."""

    def __init__(self, rollout_id: str, time: float = 1_795_600_000.0) -> None:
        self.rollout_id = rollout_id
        self.time = time
        self.lines: list[str] = []
        self.messages: list[JsonObject] = []
        self.answers = 0

    def add(self, event: str, after_ms: float = 0.0, **data: Any) -> "TraceMaker":
        self.time += after_ms / 1000
        fields = {"event": event, "rollout_id": self.rollout_id, **data, "time": round(self.time, 6)}
        self.lines.append(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))
        return self

    def start(self, prompt: str, queue_ms: float = 2.0, **request: Any) -> "TraceMaker":
        self.messages = [
            {"role": "system", "content": "You are a careful calculator. Use the tools for every step."},
            {"role": "user", "content": prompt},
        ]
        fields = {
            "messages": list(self.messages),
            "completion_params": {"temperature": 0.8},
            "max_turns": 10,
            **request,
        }
        self.add("trace_start", v=1, sdk_version="0.2.17", agent="calculator", request=fields, tools=TOOLS)
        return self.add("run_start", queue_ms, queue_ms=queue_ms)

    def turn(
        self,
        number: int,
        reply: JsonObject,
        results: Sequence[JsonObject] = (),
        *,
        ms: float = 30.0,
        tool_ms: float = 2.0,
        outcome: str = "ok",
        **sampled: Any,
    ) -> "TraceMaker":
        known = len(self.messages)
        appended = self.messages if number == 1 else self.messages[known - self.answers :]
        self.add("chat_start", turn=number, at=known - len(appended), appended=list(appended))
        finish = "tool_calls" if reply.get("tool_calls") else "stop"
        usage = {"prompt_tokens": 60 * number, "completion_tokens": 40, "total_tokens": 60 * number + 40}
        self.add("chat_end", ms, turn=number, reply=reply, finish_reason=finish, usage=usage, latency_ms=ms, **sampled)
        for call in reply.get("tool_calls") or []:
            self.add(
                "tool_call",
                tool_ms,
                turn=number,
                name=call["function"]["name"],
                tool_call_id=call["id"],
                outcome=outcome,
                latency_ms=tool_ms,
            )
        self.messages = [*self.messages, reply, *results]
        self.answers = len(results)
        return self

    def end(self, **result: Any) -> "TraceMaker":
        fields = {
            "status": "COMPLETED",
            "final_messages": self.messages,
            "finish_reason": "stop",
            "extra_fields": {"outcome": "success"},
            **result,
        }
        return self.add("rollout_result", 1.0, **fields)

    def delivered(self, verdict: str = "acknowledged", **data: Any) -> "TraceMaker":
        return self.add("delivery", 3.0, attempt=1, verdict=verdict, latency_ms=3.0, **data)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.rollout_id}.jsonl"
        path.write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8")
        return path


def call(number: int, name: str, **arguments: Any) -> JsonObject:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def calling(*calls: JsonObject) -> JsonObject:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def answer(number: int, content: str) -> JsonObject:
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": content}


def saying(content: str) -> JsonObject:
    return {"role": "assistant", "content": content}


def random_trace(number: int, random: Random, rollouts: int) -> TraceMaker:
    """A rollout as training has them: rewards rise, some fail in each of ``FAILURES``, a few have no result."""
    progress = number / max(1, rollouts - 1)
    maker = TraceMaker(f"step{number // 64}-{number:06d}", 1_795_600_000.0 + number * 0.35)
    maker.start(
        f"Work out {random.randint(2, 99)} * ({random.randint(2, 99)} + {random.randint(2, 99)}).",
        random.expovariate(1 / 40),
        metadata={"ground_truth": "42"},
    )
    slow = random.lognormvariate(4.2 - progress, 0.5)
    for turn in range(1, random.randint(1, 5) + 1):
        if random.random() < 0.06 * (1 - progress):
            maker.turn(
                turn,
                calling(call(turn, "divide", a=1, b=0)),
                [answer(turn, "Error: division by zero: b must not be 0")],
                ms=slow,
                outcome="error",
            )
        else:
            maker.turn(
                turn,
                calling(call(turn, "add", a=turn, b=7)),
                [answer(turn, str(turn + 7))],
                ms=slow,
                tool_ms=random.expovariate(1 / 6),
            )
    draw = random.random()
    if draw < 0.01:
        return maker
    if draw < 0.07:
        outcome = random.choice(list(FAILURES))
        maker.add("rollout_error", error=FAILURES[outcome])
        return maker.end(
            status="ERROR", finish_reason="error", error_message=FAILURES[outcome], extra_fields={"outcome": outcome}
        ).delivered()
    maker.turn(9, saying("That makes\n#### 42"), ms=slow)
    reward = 1.0 if random.random() < 0.35 + 0.55 * progress else random.choice([0.0, 0.0, 0.25, 0.5])
    finish = "stop" if draw < 0.95 else "length"
    return maker.end(
        reward=reward,
        finish_reason=finish,
        metrics={
            "total_latency_ms": 100.0,
            "llm_latency_ms": slow,
            "tool_latency_ms": 2.0,
            "num_llm_calls": 3,
            "num_tool_calls": 2,
            "prompt_tokens": 300,
            "response_tokens": 90,
            "max_context_tokens": 200,
        },
    ).delivered()


def write_random_traces(folder: Path, rollouts: int, seed: int = 7) -> None:
    """Write ``rollouts`` traces under ``folder``."""
    random = Random(seed)  # noqa: S311 - the same each time is the point
    for number in range(rollouts):
        random_trace(number, random, rollouts).write(folder / "1795600000")
