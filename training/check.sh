#!/bin/sh
# Checks this project and examples/trl where PyTorch is: types, and tests, which train through a real server. After setup.sh.
set -eu
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv-training}
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
    'hypothesis>=6.100' 'mypy>=1.15' 'pytest>=8.3' 'pytest-asyncio>=1.0' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6'
"$VENV/bin/python" -m mypy --config-file training/pyproject.toml training examples/trl/train.py
"$VENV/bin/python" -m pytest --config-file training/pyproject.toml --rootdir training -n 2 --dist loadfile training
