"""What a batch came to."""

from collections import Counter
from typing import Any

from osmosis_ai.rollout.core.reward_parts import reaches, readable_components
from osmosis_ai.rollout.core.text import shortened
from osmosis_ai.rollout.run.results.results_file import Record
from osmosis_ai.rollout.run.run_line import RunVerdict, verdict_of
from osmosis_ai.rollout.run.tally import Tally

SOLVED_REWARD = 1.0


class BatchReport(Tally):
    """Grows by one run at a time."""

    def __init__(self, planned: int) -> None:
        super().__init__(planned)
        self.counts = dict.fromkeys(RunVerdict, 0)
        self.solved = 0
        self.finish_reasons: Counter[str] = Counter()
        """Of the runs that came to their end, as the agent says."""
        self.rate_limit_waits = 0

    def add(self, record: Record) -> None:
        """Count one run."""
        self.ended += 1
        self.counts[verdict_of(record)] += 1
        self.total_tokens += record["token_usage"].get("total_tokens", 0)
        self.count_cost(record["cost_usd"])
        reward = record["reward"]
        self.solved += reward is not None and reaches(reward, SOLVED_REWARD)
        self.count_reward(reward, readable_components(record.get("reward_components")), record.get("zero_reason"))
        if record["success"] and record.get("finish_reason"):
            self.finish_reasons[shortened(record["finish_reason"], limit=40)] += 1
        self.count_slips(record, record["row_index"], record["rollout_id"])
        if not record["success"]:
            text = shortened(record["error"] or "no reason was given")
            where, hint = record.get("where") or (), record.get("hint")
            self.count_problem(record["error_kind"] or "agent", text, record["row_index"], where, hint)

    def summary(self) -> dict[str, Any]:
        """The totals as JSON."""
        return {
            "total": self.ended,
            "passed": self.counts[RunVerdict.PASSED],
            "solved": self.solved,
            "finish_reasons": dict(self.finish_reasons),
            "rate_limit_waits": self.rate_limit_waits,
            **self.totals(),
        }
