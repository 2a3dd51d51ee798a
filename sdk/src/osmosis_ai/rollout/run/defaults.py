"""Default values of ``osmosis test`` and ``eval``, in a module that imports nothing: ``--help`` shows them quickly."""

MODEL = "gpt-4o"
MAX_TURNS = 10
CONCURRENCY = 1
RUN_TIMEOUT_SECONDS = 600.0
