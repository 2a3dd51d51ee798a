"""The model that ``osmosis test`` would use."""

from osmosis_ai.rollout.run.defaults import MODEL
from osmosis_ai.rollout.tooling.doctor.case import Case, check
from osmosis_ai.rollout.tooling.doctor.types import Finding, ok, problem, warning


@check("model-key", "the model of osmosis test has its key")
def check_model_key(case: Case) -> Finding:
    from osmosis_ai.rollout.run.models.choice import is_builtin, key_problem, model_problem

    model = (MODEL if case.setup.model is None else case.setup.model).strip()
    wrong_name = model_problem(model, None)
    if wrong_name is not None:
        return problem(wrong_name, "Name it as in --model openai/gpt-4o, or --model builtin/arithmetic.")
    if is_builtin(model, None):
        return ok(f"{model} needs none.")
    missing = key_problem(model, None, None)
    if missing is None:
        return ok(f"{model} has one, or needs none that is known.")
    message, _, fix = missing.partition(": ")
    if case.setup.model is None:
        return warning(
            f"{message}, which osmosis test asks by default.",
            f"{fix[0].upper()}{fix[1:]} Or give osmosis test another --model, as builtin/arithmetic.",
        )
    return problem(f"{message}.", fix[0].upper() + fix[1:])
