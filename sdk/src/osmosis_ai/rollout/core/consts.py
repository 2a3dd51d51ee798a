"""Names stated once: the distribution's name and version (the build reads it from here), and what all parts share."""

import os

package_name = "osmosis-ai"

# 0.2.17-compatible; the local label says that this is not the withdrawn 0.2.17 wheel.
PACKAGE_VERSION = "0.2.17+workspace"

# Set to anything, no `.env` file is read.
NO_DOTENV_VARIABLE = "OSMOSIS_NO_DOTENV"

# Of `osmosis doctor`: the key that a trainer's inits bring.
TRAINER_KEY_VARIABLE = "OSMOSIS_TRAINER_API_KEY"

# The bearer token for the server of `--mcp URL`.
MCP_KEY_VARIABLE = "OSMOSIS_MCP_API_KEY"

# Of a server that a trainer starts: it ends when its standard input does.
WHILE_STDIN_IS_OPEN_VARIABLE = "OSMOSIS_SERVE_WHILE_STDIN_IS_OPEN"

# A text, as pathlib would be half of what `import osmosis_ai` loads.
PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120 - as said
"""Where ``osmosis_ai`` lies."""
