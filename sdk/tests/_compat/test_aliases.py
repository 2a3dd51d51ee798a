"""The import paths of 0.2.17 and, in its own package, of 0.2.11."""

from importlib import import_module

import pytest

NEW = "osmosis_ai.rollout.eval"
OLD = "osmosis_ai.rollout.test_mode"


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "common",
            (
                "REQUIRED_COLUMNS DatasetParseError DatasetReader DatasetRow DatasetValidationError ExternalLLMClient"
                " LocalBatchResult LocalExecutionError LocalLLMClientProtocol LocalRolloutRunner LocalRunResult"
                " ProviderError ToolValidationError build_completion_params create_llm_client dataset_row_to_request"
                " format_duration format_tokens load_agent load_dataset_rows validate_tools"
            ),
        ),
        ("common.llm_client", "ExternalLLMClient"),
        (
            "test_mode",
            (
                "ExternalLLMClient InteractiveLLMClient InteractiveRunner InteractiveStep LocalTestBatchResult"
                " LocalTestRunResult LocalTestRunner ProviderError"
            ),
        ),
        ("test_mode.runner", "LocalTestBatchResult LocalTestRunResult LocalTestRunner validate_tools"),
        ("test_mode.interactive", "InteractiveLLMClient InteractiveRunner InteractiveStep"),
        ("test_mode.cli", "TestCommand"),
    ],
)
def test_every_documented_name_is_there(module: str, names: str) -> None:
    found = import_module(f"{NEW}.{module}")
    assert sorted(found.__all__) == sorted(names.split())
    for name in names.split():
        getattr(found, name)


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("dataset", "common.dataset", "DatasetReader DatasetRow REQUIRED_COLUMNS dataset_row_to_request"),
        ("exceptions", "common.errors", "DatasetParseError DatasetValidationError ProviderError ToolValidationError"),
        ("external_llm_client", "common.llm_client", "ExternalLLMClient"),
        ("runner", "test_mode.runner", "LocalTestBatchResult LocalTestRunResult LocalTestRunner"),
        ("interactive", "test_mode.interactive", "InteractiveLLMClient InteractiveRunner InteractiveStep"),
        ("cli", "test_mode.cli", "TestCommand"),
    ],
)
def test_every_old_name_is_the_new_object(old: str, new: str, names: str) -> None:
    package, module, target = (import_module(name) for name in (OLD, f"{OLD}.{old}", f"{NEW}.{new}"))
    for name in names.split():
        assert getattr(module, name) is getattr(target, name)
        if old != "cli":
            assert getattr(package, name) is getattr(target, name)


def test_the_old_base_of_all_errors_is_the_new_one() -> None:
    errors = import_module(f"{NEW}.common.errors")
    assert import_module(OLD).TestModeError is errors.LocalExecutionError
