"""The agent's tools: a look at the tables, and a query, over a database that belongs to the rollout alone."""

import sqlite3
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

from osmosis_ai.rollout import Toolbox, ToolExecutionError

COMPANY = (Path(__file__).parent / "company.sql").read_text(encoding="utf-8")
MAX_ROWS = 20


class Database:
    """A copy for one rollout. Calls of one reply run together, in threads, so a lock hands the connection on."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        self.connection.executescript(COMPANY)
        self.close = self.connection.close

    def rows(self, sql: str) -> list[Any]:
        try:
            with self.lock:
                return self.connection.execute(sql).fetchmany(MAX_ROWS)
        except sqlite3.Error as error:
            raise ToolExecutionError(str(error)) from error  # the model's mistake: it is told, and can do better


def tables(database: Database) -> list[Any]:
    """Get the statements that made the tables."""
    return database.rows("SELECT sql FROM sqlite_master")


def query(sql: Annotated[str, "One statement of SQLite"], database: Database) -> list[Any]:
    """Run a statement and get its first rows."""
    return database.rows(sql)


TOOLS = Toolbox(tables, query, state=Database)
