"""Train a small model through the rollout server: a trainer of the protocol, on the SDK's trainer library."""

import os

# Read when the libraries are imported: nothing asks a hub for what lies on this disk, nor warns of what is known.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
