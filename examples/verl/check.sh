#!/bin/sh
# Checks this example where verl is: types, and its tests. After setup.sh.
set -eu
cd "$(dirname "$0")/../.."

VENV=${VENV:-.venv-verl}
UV=$(command -v uv || echo "python3 -m uv")
$UV pip install --quiet --python "$VENV/bin/python" \
    'hypothesis>=6.100' 'mypy>=1.15' 'pytest>=8.3' 'pytest-asyncio>=1.0' 'pytest-timeout>=2.3'
"$VENV/bin/python" -m mypy --config-file examples/verl/pyproject.toml examples/verl
"$VENV/bin/python" -m pytest --config-file examples/verl/pyproject.toml --rootdir examples/verl examples/verl
