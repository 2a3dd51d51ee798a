"""Default values of ``osmosis doctor``, in a module that imports nothing, so that ``--help`` can show them quickly."""

TIME_LIMIT_SECONDS = 2.0
"""Of all checks together."""

PROGRAM_SECONDS = 2.6
"""From the start of the program to the end of its checks, unless it is told otherwise."""
MIN_TIME_LIMIT_SECONDS = 1.0
"""For the checks, however long the start took."""

TRAINER_KEY_VARIABLE = "OSMOSIS_TRAINER_API_KEY"
