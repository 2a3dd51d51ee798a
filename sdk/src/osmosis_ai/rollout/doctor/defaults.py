"""Default values of ``osmosis doctor``, in a module that imports nothing, so that ``--help`` can show them quickly."""

TIME_LIMIT_SECONDS = 2.0
"""Of all checks together; with the start of the program that stays below 3 s."""

TRAINER_KEY_VARIABLE = "OSMOSIS_TRAINER_API_KEY"
