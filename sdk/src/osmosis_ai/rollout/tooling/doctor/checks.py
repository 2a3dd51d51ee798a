"""The table of all checks, in the order they are shown."""

from osmosis_ai.rollout.tooling.doctor import address, agent, configuration, environment, model, storage, trainer
from osmosis_ai.rollout.tooling.doctor.types import Check, Need

_AGENT, _TRAINER = (Need.AGENT,), (Need.TRAINER,)

CHECKS = (
    Check("python", "Python is new enough, and the project's own", environment.check_python),
    Check("sdk", "no other product is installed under this SDK's name", environment.check_sdk),
    Check("extras", "the packages that are needed are installed", environment.check_extras),
    Check("fast-http", "uvloop, httptools and watchfiles are installed", environment.check_fast_http),
    Check("open-files", "enough files may be open", environment.check_open_files),
    Check("dotenv", ".env can be read, and by nobody else", configuration.check_dotenv),
    Check("settings", "all settings are within bounds", configuration.check_settings),
    Check("variables", "no variable is misspelt", configuration.check_variables),
    Check("key", "others need a key to use the server", configuration.check_key),
    Check("key-strength", "the key can be sent, and not be guessed", configuration.check_key_strength),
    Check("host", "the host is an address of this machine", address.check_host),
    Check("port", "the port is free", address.check_port),
    Check("running-server", "a server that runs already asks for this key", address.check_running_server),
    Check("agent-import", "the agent's module can be imported", agent.check_import, _AGENT),
    Check("agent-loop", "the attribute is an agent loop", agent.check_loop, _AGENT),
    Check("agent-valid", "the agent loop is valid", agent.check_valid, _AGENT),
    Check("tool-schemas", "the tools can be sent to a trainer", agent.check_tool_schemas, _AGENT),
    Check("get-tools", "get_tools answers at once", agent.check_get_tools, _AGENT),
    Check("trainer-url", "the trainer's URL is a base URL", trainer.check_url, _TRAINER),
    Check("trainer-place", "trainer and server can reach each other", trainer.check_place, _TRAINER),
    Check("trainer-allowed", "the trainer is one that the server allows", trainer.check_allowed, _TRAINER),
    Check("trainer-proxy", "no proxy stands in between", trainer.check_proxy, _TRAINER),
    Check("trainer-reachable", "the trainer answers", trainer.check_reachable, _TRAINER),
    Check("trainer-paths", "the trainer has the protocol's paths", trainer.check_paths, _TRAINER),
    Check("trainer-key", "the trainer takes its key", trainer.check_trainer_key, _TRAINER),
    Check("clock", "this machine's clock is right", trainer.check_clock, _TRAINER),
    Check("journal", "the journal can be used", storage.check_journal),
    Check("journal-disk", "the journal's disk has room", storage.check_disk),
    Check("journal-file-system", "the journal is on a local disk", storage.check_file_system),
    Check("journal-owner", "no other server uses the journal", storage.check_owner),
    Check("journal-leftovers", "no server was killed", storage.check_leftovers),
    Check("traces", "traces can be written", storage.check_traces, (Need.TRACES,)),
    Check("model-key", "the model of osmosis test has its key", model.check_model_key),
)
