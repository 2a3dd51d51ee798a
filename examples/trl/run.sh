#!/bin/sh
# Trains the calculator with TRL, through `osmosis serve`: installs what is needed, serves the agent, trains.
# Arguments go to examples.trl.train, as in: examples/trl/run.sh --steps 8 --learning-rate 1e-4
#   AGENT  what is served [server:agent_loop]      PORT  where [8471]      VENV  the environment [.venv-training]
set -eu
cd "$(dirname "$0")/../.."

export VENV="${VENV:-.venv-training}"
training/setup.sh
: "${OSMOSIS_ROLLOUT_SERVER_API_KEY:=$("$VENV/bin/python" -c 'import secrets; print(secrets.token_hex(16))')}"
export OSMOSIS_ROLLOUT_SERVER_API_KEY TRL_EXPERIMENTAL_SILENCE=1

"$VENV/bin/osmosis" serve -m "${AGENT:-server:agent_loop}" -H 127.0.0.1 -p "${PORT:-8471}" &
server=$!
trap 'kill "$server"' EXIT
"$VENV/bin/python" -m examples.trl.train --server "http://127.0.0.1:${PORT:-8471}" "$@"
