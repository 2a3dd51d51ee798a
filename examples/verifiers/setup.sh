#!/bin/sh
# Makes .venv-verifiers beside the project and installs what this example needs, in about a minute.
#   PYTHON  the Python to use [python3]
# Run it again whenever you like; what is there already stays.
set -eu
cd "$(dirname "$0")/../.."

VENV=${VENV:-.venv-verifiers}
UV=$(command -v uv || echo "python3 -m uv")
[ -x "$VENV/bin/python" ] || $UV venv --quiet --python "${PYTHON:-python3}" "$VENV"
# A released version of the SDK is another product, so the one in this tree comes first.
$UV pip install --quiet --python "$VENV/bin/python" --editable 'sdk[server]' 'verifiers==0.4.0'
echo "Ready: $VENV/bin/vf-eval, as examples/verifiers/README.md says"
