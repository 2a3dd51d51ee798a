"""The agent, and the app that serves it to a trainer: `python -m server`, or `uvicorn server:app`."""

from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    create_app,
    run_app,
    summarize,
)
from rewards import compute_reward
from tools import TOOLS


class CalculatorAgentLoop(RolloutAgentLoop):
    """Lets the model call tools until it answers without a call, or reaches a limit of the request."""

    name = "calculator"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return TOOLS.schemas

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        request = ctx.request
        messages = list(request.messages)  # only ever appended to: the trainer keeps the tokens of what it was sent
        finish_reason = "max_turns"

        for turn in range(request.max_turns):  # at least one
            ctx.log_event("pre_llm", turn=turn, num_messages=len(messages), messages_summary=summarize(messages))
            reply = await ctx.chat(messages, **request.completion_params)
            messages.append(reply.message)
            calls, ended = reply.tool_calls, reply.finish_reason
            ctx.log_event("llm_response", turn=turn, has_tool_calls=bool(calls), tool_calls=calls, finish_reason=ended)
            if not calls:
                finish_reason = ended
                break

            results = await TOOLS.answer(ctx, calls)
            messages += results
            ctx.log_event("tool_results", turn=turn, num_tool_results=len(results), results_summary=summarize(results))
            if ctx.context_tokens >= request.max_tokens_total:
                finish_reason = "max_tokens"
                break

        reward = compute_reward(reply.content or "", request.metadata.get("ground_truth", ""))
        ctx.log_event("rollout_complete", finish_reason=finish_reason, reward=reward, total_turns=turn + 1)
        return ctx.complete(messages, finish_reason=finish_reason, reward=reward)


agent_loop = CalculatorAgentLoop()
app = create_app(agent_loop)

if __name__ == "__main__":
    run_app(app)
