"""Writes what the documentation takes from the code: ``uv run python -m docs.generate``; ``--check`` only compares."""
