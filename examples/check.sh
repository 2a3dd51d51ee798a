#!/bin/sh
# Checks an example where its library is: types, and its tests. Its name is the argument, verl or verifiers. After its setup.sh.
set -eu
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv-$1}
UV=$(command -v uv || echo "python3 -m uv")
$UV pip install --quiet --python "$VENV/bin/python" \
    'hypothesis>=6.100' 'mypy>=1.15' 'pytest>=8.3' 'pytest-asyncio>=1.0' 'pytest-timeout>=2.3'
"$VENV/bin/python" -m mypy --config-file "examples/$1/pyproject.toml" "examples/$1"
"$VENV/bin/python" -m pytest --config-file "examples/$1/pyproject.toml" --rootdir "examples/$1" "examples/$1"
