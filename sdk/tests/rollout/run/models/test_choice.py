import pytest

from osmosis_ai.rollout.run.errors import ProviderError
from osmosis_ai.rollout.run.models.choice import KEY_VARIABLES, for_one_run, make_llm_client
from osmosis_ai.rollout.run.models.endpoint import EndpointLLMClient
from osmosis_ai.rollout.run.models.llm_client import ExternalLLMClient
from osmosis_ai.rollout.run.policies import ArithmeticPolicy


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables in (*KEY_VARIABLES.values(), ("LITELLM_API_KEY",)):
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)


def test_a_script_needs_no_key() -> None:
    client = make_llm_client(" builtin/arithmetic ")
    assert isinstance(client, ArithmeticPolicy)
    assert for_one_run(client) is not client


def test_an_endpoint_needs_no_key_and_takes_any_name() -> None:
    client = make_llm_client("builtin/x", None, "http://127.0.0.1:1/v1")
    assert isinstance(client, EndpointLLMClient)
    assert client._api_key is None


@pytest.mark.parametrize(
    ("model", "variable"), [("gpt-4o", "OPENAI_API_KEY"), ("gemini/g", "GEMINI_API_KEY"), ("Groq/g", "GROQ_API_KEY")]
)
def test_a_missing_key_is_told_with_the_variable_to_set(model: str, variable: str) -> None:
    with pytest.raises(ProviderError, match=r"^Missing API key for provider") as failure:
        make_llm_client(model)
    for way in (variable, "LITELLM_API_KEY", "--model-api-key"):
        assert way in str(failure.value)


@pytest.mark.slow  # so are others here: LiteLLM takes seconds to import
@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY", "LITELLM_API_KEY"])
def test_a_key_may_stand_in_any_variable_that_is_taken(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "k")
    client = make_llm_client("gemini/gemini-1.5-pro")
    assert isinstance(client, ExternalLLMClient)
    assert client._api_key == ("k" if variable == "LITELLM_API_KEY" else None)


@pytest.mark.slow
def test_the_providers_own_variable_comes_before_the_one_for_any_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "own")
    monkeypatch.setenv("LITELLM_API_KEY", "any")
    assert make_llm_client("gpt-4o")._api_key is None
    assert make_llm_client("gpt-4o", "given")._api_key == "given"
    assert make_llm_client("m", None, "http://127.0.0.1:1/v1")._api_key == "any"


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("  ", "--model is empty"),
        ("openai/", "Invalid model 'openai/'"),
        ("/gpt", "Invalid model '/gpt'"),
        ("builtin/chess", "Invalid model 'builtin/chess': of those built in there is builtin/arithmetic"),
        pytest.param("foo/bar", "LiteLLM does not know the provider 'foo'; use provider/model", marks=pytest.mark.slow),
    ],
)
def test_an_unusable_name_is_one_sentence(model: str, sentence: str) -> None:
    with pytest.raises(ProviderError) as failure:
        make_llm_client(model, "key")
    assert sentence in str(failure.value)


def test_a_client_of_another_kind_serves_one_run_after_the_other() -> None:
    class Stranger:
        def __init__(self, needed: str) -> None:
            self.needed = needed

    stranger = Stranger("x")
    assert for_one_run(stranger) is stranger
