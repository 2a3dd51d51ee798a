from typing import Any

from training.chat import ChatFormat, parsed
from training.trajectory import Trajectory

QUESTION = [{"role": "system", "content": "S"}, {"role": "user", "content": "Add 1 and 2."}]
# Spelled with two blanks: made from text again, these ids would not come back.
ODD_CALL = '<tool_call>{"name":  "add", "arguments": {"a": 1, "b": 2}}</tool_call>'


def sampled_turn(chat: ChatFormat, trajectory: Trajectory, messages: list[dict[str, Any]], text: str) -> dict[str, Any]:
    trajectory.open_turn(chat, messages, [])
    ids = [*chat.encoded(text), chat.end]
    reply = parsed(text, f"call_{trajectory.turns}")
    trajectory.close_turn(ids, [-0.5] * len(ids), reply)
    return reply


def sampled_text(chat: ChatFormat, trajectory: Trajectory, number: int = 0) -> str:
    segment = trajectory.segments[number]
    return chat.text([token for token, used in zip(segment.ids, segment.is_sampled, strict=True) if used])


def test_a_turn_that_comes_back_keeps_the_ids_that_were_sampled(chat: ChatFormat) -> None:
    trajectory = Trajectory()
    reply = sampled_turn(chat, trajectory, QUESTION, ODD_CALL)
    result = {"role": "tool", "tool_call_id": "call_0_0", "content": "3"}
    sampled_turn(chat, trajectory, [*QUESTION, reply, result], "#### 3")
    [segment] = trajectory.segments
    assert sampled_text(chat, trajectory) == f"{ODD_CALL}<|im_end|>#### 3"
    assert chat.text(segment.ids).endswith(
        f"assistant\n{ODD_CALL}<|im_end|>\n<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n#### 3"
    )
    assert (trajectory.rewrites, trajectory.turns) == (0, 2)


def test_a_rewritten_history_starts_a_segment_in_which_it_carries_no_loss(chat: ChatFormat) -> None:
    trajectory = Trajectory()
    reply = sampled_turn(chat, trajectory, QUESTION, "first thought")
    changed = [*QUESTION, reply | {"content": "another thought"}, {"role": "user", "content": "Go on."}]
    sampled_turn(chat, trajectory, changed, "#### 3")
    assert trajectory.rewrites == 1
    assert sampled_text(chat, trajectory, 0) == "first thought"
    assert sampled_text(chat, trajectory, 1) == "#### 3"


def test_the_same_call_again_replaces_the_turn_that_never_arrived(chat: ChatFormat) -> None:
    trajectory = Trajectory()
    sampled_turn(chat, trajectory, QUESTION, "lost on the way")
    sampled_turn(chat, trajectory, QUESTION, "#### 3")
    assert len(trajectory.segments) == 1
    assert sampled_text(chat, trajectory) == "#### 3"
    assert (trajectory.rewrites, trajectory.turns) == (0, 1)


def test_a_turn_cut_off_is_ended_without_loss(chat: ChatFormat) -> None:
    trajectory = Trajectory()
    trajectory.open_turn(chat, QUESTION, [])
    ids = chat.encoded("I was going to")
    reply = parsed("I was going to", "call_0")
    trajectory.close_turn(ids, [-0.5] * len(ids), reply)
    prompt = trajectory.open_turn(chat, [*QUESTION, reply, {"role": "user", "content": "Go on."}], [])
    assert "I was going to<|im_end|>\n<|im_start|>user\nGo on.<|im_end|>" in chat.text(prompt)
    assert trajectory.sampled_count == len(ids)
