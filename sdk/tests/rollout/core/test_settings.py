"""Settings: where values come from, which are refused, and that each is read by something."""

import ast
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import osmosis_ai
from osmosis_ai.rollout import (
    OsmosisLLMClient,
    RolloutClientSettings,
    RolloutJudgeSettings,
    RolloutRequest,
    RolloutServerSettings,
    RolloutSettings,
    config,
    configure,
    get_max_metadata_size_bytes,
    get_settings,
    reset_settings,
)
from osmosis_ai.rollout.core import setting_names, settings as settings_module
from osmosis_ai.rollout.core.settings import SettingsError, read_settings

CLIENT = [
    ("timeout_seconds", 300.0, 1.0, 3600.0),
    ("max_retries", 3, 0, 10),
    ("complete_rollout_retries", 2, 0, 10),
    ("retry_base_delay", 1.0, 0.1, 60.0),
    ("retry_max_delay", 30.0, 1.0, 300.0),
    ("max_connections", 100, 1, 1000),
    ("max_keepalive_connections", 20, 1, 100),
]
SERVER = [
    ("max_concurrent_rollouts", 100, 1, 10000),
    ("record_ttl_seconds", 3600.0, 60.0, 86400.0),
    ("cleanup_interval_seconds", 60.0, 10.0, 3600.0),
    ("request_timeout_seconds", 600.0, 1.0, 3600.0),
    ("registration_readiness_timeout_seconds", 10.0, 1.0, 60.0),
    ("registration_readiness_poll_interval_seconds", 0.2, 0.05, 5.0),
    ("registration_shutdown_timeout_seconds", 30.0, 1.0, 300.0),
]
ALL = [("max_metadata_size_bytes", 1048576, 1024, 104857600)]
FIELDS = [
    *[(RolloutClientSettings, "OSMOSIS_ROLLOUT_CLIENT_", *row) for row in CLIENT],
    *[(RolloutServerSettings, "OSMOSIS_ROLLOUT_SERVER_", *row) for row in SERVER],
    *[(RolloutSettings, "OSMOSIS_ROLLOUT_", *row) for row in ALL],
]
every_field = pytest.mark.parametrize(
    ("model", "prefix", "name", "default", "smallest", "largest"), FIELDS, ids=[f"{row[1]}{row[2]}" for row in FIELDS]
)

# Platform registration is not available, and nothing is left to wait for or to poll.
WITHOUT_EFFECT = {"registration_readiness_timeout_seconds", "registration_readiness_poll_interval_seconds"}


class TestFields:
    @every_field
    def test_the_default_and_both_bounds_are_as_documented(
        self, model: type[BaseModel], prefix: str, name: str, default: Any, smallest: Any, largest: Any
    ) -> None:
        assert getattr(model(), name) == default
        assert type(getattr(model(), name)) is type(default)
        for value in (smallest, largest):
            assert getattr(model(**{name: value}), name) == value
        for value in (smallest - (1 if isinstance(default, int) else 0.01), largest + 1, "many", None, float("nan")):
            with pytest.raises(ValidationError, match=name):
                model(**{name: value})

    @every_field
    def test_a_variable_sets_it_whatever_the_case_and_an_argument_wins(
        self,
        monkeypatch: pytest.MonkeyPatch,
        model: type[BaseModel],
        prefix: str,
        name: str,
        default: Any,
        smallest: Any,
        largest: Any,
    ) -> None:
        monkeypatch.setenv(prefix + name.upper(), str(largest))
        assert getattr(model(), name) == largest
        assert getattr(model(**{name: smallest}), name) == smallest
        monkeypatch.delenv(prefix + name.upper())
        monkeypatch.setenv((prefix + name).lower(), str(largest))
        assert getattr(model(), name) == largest

    @every_field
    def test_a_variable_out_of_bounds_is_refused_by_name(
        self,
        monkeypatch: pytest.MonkeyPatch,
        model: type[BaseModel],
        prefix: str,
        name: str,
        default: Any,
        smallest: Any,
        largest: Any,
    ) -> None:
        for value in (str(largest + 1), "many"):
            monkeypatch.setenv(prefix + name.upper(), value)
            with pytest.raises(ValidationError, match=name):
                RolloutSettings()
            variable, bounds = prefix + name.upper(), rf"number from {smallest:.12g} to {largest:.12g}, not '{value}'"
            with pytest.raises(SettingsError, match=rf"The setting {variable} cannot be used: it must be .*{bounds}"):
                read_settings()
        monkeypatch.setenv(prefix + name.upper(), " ")
        assert getattr(model(), name) == default, "an empty value is unset"

    def test_assignment_is_not_checked(self) -> None:
        settings = RolloutClientSettings()
        settings.retry_base_delay = 0.0
        assert settings.retry_base_delay == 0.0

    def test_what_is_unknown_is_ignored(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_COLOUR", "red")
        (tmp_path / ".env").write_text("OSMOSIS_ROLLOUT_CLIENT_SIZE=1\nOTHER=2\n")
        arguments: dict[str, Any] = {"shape": "round"}
        assert RolloutSettings(**arguments) == RolloutSettings()

    @pytest.mark.parametrize(
        ("smaller", "larger"),
        [("retry_base_delay", "retry_max_delay"), ("max_keepalive_connections", "max_connections")],
    )
    def test_two_values_given_in_the_wrong_order_are_refused(self, smaller: str, larger: str) -> None:
        arguments: dict[str, Any] = {smaller: 20, larger: 10}
        with pytest.raises(ValidationError, match=rf"{smaller} \(20\) must not exceed {larger} \(10\)"):
            RolloutClientSettings(**arguments)
        assert getattr(RolloutClientSettings(**{**arguments, smaller: 10}), smaller) == 10

    def test_a_default_bends_to_the_value_that_is_given(self) -> None:
        assert RolloutClientSettings(retry_base_delay=60).retry_max_delay == 30
        assert RolloutClientSettings(max_connections=1).max_connections == 1


class TestSources:
    def test_the_file_in_the_current_directory_is_read_below_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / ".env").write_text(
            "OSMOSIS_ROLLOUT_CLIENT_MAX_RETRIES=4\nosmosis_rollout_server_max_concurrent_rollouts=9\n", encoding="utf-8"
        )
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_MAX_RETRIES", "5")
        settings = RolloutSettings()
        assert (settings.client.max_retries, settings.server.max_concurrent_rollouts) == (5, 9)

    def test_a_file_further_up_is_not_read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("OSMOSIS_ROLLOUT_CLIENT_MAX_RETRIES=4\n")
        (tmp_path / "below").mkdir()
        monkeypatch.chdir(tmp_path / "below")
        assert RolloutSettings().client.max_retries == 3

    def test_no_file_is_read_where_the_user_says_so(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("OSMOSIS_ROLLOUT_CLIENT_MAX_RETRIES=4\n")
        monkeypatch.setenv("OSMOSIS_NO_DOTENV", "1")
        assert RolloutSettings().client.max_retries == 3

    def test_a_file_that_is_no_text_is_one_sentence_with_a_way_out(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / ".env").write_bytes(b"A=\xff\n")
        with pytest.raises(ValueError, match=r"\.env in the current directory is not UTF-8.*OSMOSIS_NO_DOTENV"):
            get_settings()
        monkeypatch.setenv("OSMOSIS_NO_DOTENV", "1")
        assert get_settings().client.max_retries == 3

    def test_json_for_a_part_sets_what_it_names_and_the_parts_own_variables_the_rest(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT", '{"max_retries": 5}')
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_MAX_RETRIES", "9")
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_TIMEOUT_SECONDS", "7")
        client = RolloutSettings().client
        assert (client.max_retries, client.timeout_seconds) == (5, 7)

    @pytest.mark.parametrize("text", ["{", "[]", "1", '{"api_key": 1, "max_retries": 11}', "[" * 100_000])
    @pytest.mark.parametrize("part", ["client", "server"])
    def test_json_for_a_part_that_is_no_fitting_object_is_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch, part: str, text: str
    ) -> None:
        monkeypatch.setenv(f"OSMOSIS_ROLLOUT_{part.upper()}", text)
        with pytest.raises(ValidationError, match=part):
            RolloutSettings()


class TestSentences:
    @pytest.mark.parametrize(
        ("variables", "sentence"),
        [
            ({"SERVER_LOG_FORMAT": "xml"}, "SERVER_LOG_FORMAT cannot be used: it must be one of text, json, not 'xml'"),
            ({"SERVER_JOURNAL_SYNCHRONOUS": "off"}, "it must be one of normal, full, not 'off'"),
            ({"SERVER_METRICS": "\x1b[31m"}, "it must be one of key, open, off, not "),
            ({"JUDGE_BASE_URL": "localhost"}, "it must be a URL such as http://127.0.0.1:8000/v1, not 'localhost'"),
            (
                {"JUDGE_BASE_URL": "ftp://u:pw@x"},
                "it must be a URL such as http://127.0.0.1:8000/v1, not 'ftp://***@x'",
            ),
            ({"JUDGE_TIMEOUT_SECONDS": "nan"}, "it must be a number from 0.1 to 3600, not 'nan'"),
            ({"CLIENT": "[1]"}, "OSMOSIS_ROLLOUT_CLIENT cannot be used: it must be a JSON object"),
            ({"CLIENT": '{"max_retries": 11}'}, "CLIENT_MAX_RETRIES cannot be used: it must be a whole number from 0"),
            (
                {"CLIENT_RETRY_BASE_DELAY": "20", "CLIENT_RETRY_MAX_DELAY": "10"},
                r"OSMOSIS_ROLLOUT_CLIENT_RETRY_BASE_DELAY (20) must not exceed OSMOSIS_ROLLOUT_CLIENT_RETRY_MAX_DELAY",
            ),
            ({"SERVER_API_KEY": ""}, "SERVER_API_KEY cannot be used: it must not be empty"),
        ],
    )
    def test_each_names_variable_value_and_bounds(
        self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
    ) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"OSMOSIS_ROLLOUT_{name}", value)
        with pytest.raises(SettingsError) as told:
            read_settings()
        assert sentence in str(told.value)
        assert str(told.value).endswith("correct it in the environment or in .env.")
        assert "\x1b" not in str(told.value)

    def test_a_secret_is_not_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER", '{"api_key": ["s3cret"]}')
        with pytest.raises(SettingsError, match="SERVER_API_KEY cannot be used: it must be a text;") as told:
            read_settings()
        assert "s3cret" not in str(told.value)


class TestSecrets:
    def test_the_key_stays_out_of_repr_and_errors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_API_KEY", "s3cret")
        settings = RolloutSettings()
        assert settings.server.api_key is not None
        assert settings.server.api_key.get_secret_value() == "s3cret"
        assert "s3cret" not in repr(settings) + str(settings)
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_RECORD_TTL_SECONDS", "s3cret")
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER", '{"api_key": ["s3cret"]}')
        with pytest.raises(ValidationError) as caught:
            RolloutSettings()
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("key", ["", "   "])
    def test_an_empty_key_that_would_lock_everyone_out_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_API_KEY", key)
        with pytest.raises(ValidationError, match="api_key must not be empty"):
            RolloutSettings()


class TestProcessWideSettings:
    def test_they_are_built_once_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_MAX_RETRIES", "5")
        first = get_settings()
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_MAX_RETRIES", "6")
        assert get_settings() is first
        assert settings_module._settings is first
        reset_settings()
        assert settings_module._settings is None
        assert get_settings().client.max_retries == 6

    def test_they_can_be_replaced(self) -> None:
        mine = RolloutSettings(client=RolloutClientSettings(timeout_seconds=9))
        configure(mine)
        assert get_settings() is mine
        assert OsmosisLLMClient("http://trainer", "r").timeout_seconds == 9

    @pytest.mark.parametrize("nonsense", [None, {}, RolloutClientSettings()])
    def test_nothing_else_can_take_their_place(self, nonsense: Any) -> None:
        before = get_settings()
        with pytest.raises(TypeError, match="RolloutSettings"):
            configure(nonsense)
        assert get_settings() is before

    def test_the_metadata_limit_is_the_setting_until_it_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.core.schemas._max_metadata_size_bytes", None)
        monkeypatch.setenv("OSMOSIS_ROLLOUT_MAX_METADATA_SIZE_BYTES", "2048")
        assert get_max_metadata_size_bytes() == 2048
        with pytest.raises(ValidationError, match="exceeds maximum of 2048 bytes"):
            RolloutRequest(
                rollout_id="r",
                server_url="http://trainer",
                messages=[],
                completion_params={},
                metadata={"text": "x" * 2048},
            )


class TestUse:
    def test_both_modules_offer_the_same_names(self) -> None:
        assert sorted(config.__all__) == sorted(settings_module.__all__)
        assert all(getattr(config, name) is getattr(settings_module, name) for name in config.__all__)

    def test_every_setting_is_read_somewhere(self) -> None:
        declared = {
            *RolloutClientSettings.model_fields,
            *RolloutServerSettings.model_fields,
            *RolloutJudgeSettings.model_fields,
            *RolloutSettings.model_fields,
        }
        source = Path(osmosis_ai.__file__).parent
        unread = set(declared)
        for file in source.rglob("*.py"):
            code = file.read_text(encoding="utf-8")
            if file.name != "settings.py" and any(f".{name}" in code for name in unread):
                unread -= {node.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)}
        assert unread == WITHOUT_EFFECT


class TestUnknownVariables:
    """A misspelt variable leaves a default in place: it is told, whatever group it was meant for."""

    @pytest.mark.parametrize(
        ("name", "value", "told"),
        [
            ("OSMOSIS_ROLLOUT_JUDGE_MODLE", "m", "did you mean OSMOSIS_ROLLOUT_JUDGE_MODEL?"),
            ("OSMOSIS_ROLLOUT_CLIENT_TIMOUT_SECONDS", "3", "did you mean OSMOSIS_ROLLOUT_CLIENT_TIMEOUT_SECONDS?"),
            ("OSMOSIS_ROLLOUT_SERVER_APIKEY", "secret-1", "did you mean OSMOSIS_ROLLOUT_SERVER_API_KEY?"),
            ("OSMOSIS_ROLLOUT_METADATA_SIZE_BYTES", "3000", "did you mean OSMOSIS_ROLLOUT_MAX_METADATA_SIZE_BYTES?"),
            ("OSMOSIS_ROLLOUT_JUDGE_FROBNICATION", "1", "osmosis doctor knows them all."),
            ("OSMOSIS_ROLLOUT_JUDGE", '{"modle": "secret-2"}', "did you mean model?"),
        ],
    )
    def test_one_is_told_once_with_what_was_meant_and_no_value(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str, told: str
    ) -> None:
        monkeypatch.setattr(setting_names, "_told", set())
        monkeypatch.setenv(name, value)
        read_settings()
        read_settings()
        [line] = caplog.messages
        assert line.startswith(f"'{name}")
        assert line.endswith(told)
        assert "secret" not in line

    def test_those_that_are_known_and_other_peoples_are_not(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(setting_names, "_told", set())
        for name, value in {
            "OSMOSIS_ROLLOUT_JUDGE": '{"model": "m"}',
            "osmosis_rollout_judge_max_calls": "3",
            "OSMOSIS_ROLLOUT_SERVER_JOURNAL": "off",
            "OSMOSIS_PLATFORM_TEAM": "1",
        }.items():
            monkeypatch.setenv(name, value)
        read_settings()
        assert not caplog.messages
