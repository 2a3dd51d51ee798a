"""Benchmarks: each is a command, ``uv run python -m bench.<name>``, that prints its findings and ends by itself."""
