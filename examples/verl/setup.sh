#!/bin/sh
# Makes .venv-verl beside the project and installs what this example needs, in about a minute.
#   PYTHON  the Python to use, 3.11 or 3.12 [python3]       TORCH  what pip is to install as PyTorch [torch==2.13.0]
# Run it again whenever you like; what is there already stays.
set -eu
cd "$(dirname "$0")/../.."

VENV=${VENV:-.venv-verl}
UV=$(command -v uv || echo "python3 -m uv")
[ -x "$VENV/bin/python" ] || $UV venv --quiet --seed --python "${PYTHON:-python3}" "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "${TORCH:-torch==2.13.0}"
# A released version of the SDK is another product, so the one in this tree comes first.
# verl 0.9.1 imports cachetools without depending on it, and its trainer v1 TransferQueue.
$UV pip install --quiet --python "$VENV/bin/python" \
    --editable 'sdk[server]' 'verl==0.9.1' 'cachetools>=5' 'TransferQueue==0.1.11' 'ray==2.60.0' 'tensordict==0.10.0' \
    'transformers==5.10.4'
echo "Ready: PYTHONPATH=examples/verl $VENV/bin/python -m verl.trainer.main_ppo ..., as examples/verl/README.md says"
