import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from osmosis_ai.rollout.core.settings import reset_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, with nobody's settings and no proxy."""
    for name in list(os.environ):
        if name.upper().startswith(("OSMOSIS_", "ROLLOUT_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    reset_settings()
    yield tmp_path
    reset_settings()
