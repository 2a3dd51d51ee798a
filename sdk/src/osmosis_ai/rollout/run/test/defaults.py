"""Default values of ``osmosis test``, in a module that imports nothing, so that ``--help`` can show them quickly."""

MODEL = "gpt-4o"
MAX_TURNS = 10
CONCURRENCY = 1
ROW_TIMEOUT_SECONDS = 600.0
