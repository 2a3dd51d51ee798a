"""What needs an environment of its own is tested there, by ``check.sh``."""

collect_ignore = ["verifiers", "verl"]
