"""Scripted policies: stand-ins for a model behind ``LLMClientProtocol``, with no key, no network and no randomness."""

from osmosis_ai.rollout.run.policies.arithmetic import ArithmeticPolicy

__all__ = ["BUILTIN_POLICIES", "ArithmeticPolicy"]

BUILTIN_POLICIES: dict[str, type[ArithmeticPolicy]] = {ArithmeticPolicy.display_name: ArithmeticPolicy}
