"""The fixtures of the commands' tests."""

from cli.conftest import user_agent, working_directory, write_module

__all__ = ["user_agent", "working_directory", "write_module"]
