"""What needs an environment of its own is tested there, by its ``check.sh``."""

collect_ignore = ["verifiers", "verl"]
