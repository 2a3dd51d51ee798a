import subprocess
import sys


def test_the_vocabulary_and_the_memory_journal_do_without_sqlite() -> None:
    code = "import sys; from osmosis_ai.rollout.journal import MemoryJournal; print('sqlite3' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
