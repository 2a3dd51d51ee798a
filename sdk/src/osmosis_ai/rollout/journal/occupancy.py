"""Who has a journal's file open, by either proof of life (``owner``)."""

from pathlib import Path

from osmosis_ai.rollout.journal.anchor import drop_anchor, take_anchor
from osmosis_ai.rollout.journal.errors import JournalError
from osmosis_ai.rollout.journal.owner import living


def owners_directory(path: Path) -> Path:
    return path.with_name(path.name + ".owners")


def require_nobody(path: Path, but: str = "") -> None:
    """Raise ``JournalError`` if an owner other than ``but`` has the journal open."""
    if is_open_elsewhere(path, but):
        raise JournalError(f"A server runs on the journal {path}: stop it first, as it still delivers.")


def is_open_elsewhere(path: Path, but: str = "") -> bool:
    """Whether an owner other than ``but`` has, with records or without."""
    if any(owner != but for owner in living(owners_directory(path))):
        return True
    try:
        anchor = take_anchor(path)
    except OSError:  # no main file, or one that this user may only read
        return False
    try:
        return anchor.is_held_by_another(but)
    finally:
        drop_anchor(anchor)
