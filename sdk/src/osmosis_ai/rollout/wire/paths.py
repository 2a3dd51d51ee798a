"""The paths of the protocol, as both sides know them. See ``docs/protocol.md``."""

INIT_PATH = "/v1/rollout/init"
CANCEL_PATH = "/v1/rollout/cancel"
CHAT_PATH = "/v1/chat/completions"
COMPLETED_PATH = "/v1/rollout/completed"

# Those of 0.3, where results are fetched.
START_PATH = "/rollout"
PULL_CANCEL_PATH = "/rollout/cancel"
