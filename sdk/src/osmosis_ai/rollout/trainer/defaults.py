"""Default values of the trainer, in a module that imports nothing, so that ``--help`` can show them quickly."""

CONCURRENCY = 16
ROLLOUT_TIMEOUT_SECONDS = 600.0
"""As long as a server lets a rollout run (``REQUEST_TIMEOUT_SECONDS``)."""
MAX_TURNS = 10
MAX_TOKENS_TOTAL = 8192
PROTOCOLS = ("0.2", "0.3")
PROTOCOL = PROTOCOLS[0]
CALLBACK_HOST = "127.0.0.1"
MODEL = "builtin/arithmetic"

SERVER_KEY_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_API_KEY"
