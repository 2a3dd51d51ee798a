"""``python -m rollout_conformance``."""

from rollout_conformance.command import main

main()
