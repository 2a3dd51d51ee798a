"""Exit codes: 0 all is as the code says, 1 something is stale (``--check``; without it, it is written)."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from docs.generate import conformance, pull_schemas, runs, schemas, sentences, tables, transcript

DOCS = Path(__file__).parents[1]
KIT = DOCS.parent / "conformance/src/rollout_conformance"
COMMAND = "uv run python -m docs.generate"


def documents() -> Iterator[tuple[Path, str]]:
    """Every generated file, as it should be."""
    for name, text in {**schemas.files(), **pull_schemas.files(), **runs.files()}.items():
        yield DOCS / "schemas" / name, text
    page = DOCS / "protocol.md"
    parts = {**tables.tables(), "transcript": transcript.transcript()}
    before = page.read_text(encoding="utf-8")
    protocol = tables.fill(before, {**parts, "not-tried": sentences.not_tried(before)})
    yield page, protocol
    yield KIT / "sentences.json", sentences.as_json(protocol)
    page = DOCS / "protocol-0.3.md"
    yield page, tables.fill(page.read_text(encoding="utf-8"), tables.pull_tables())
    page = DOCS / "json.md"
    yield page, tables.fill(page.read_text(encoding="utf-8"), runs.table())
    page = DOCS / "conformance.md"
    yield page, tables.fill(page.read_text(encoding="utf-8"), {"checks": conformance.tables()})
    page = DOCS / "conformance-matrix.md"
    matrix = sentences.table(protocol, conformance.planted_defects())
    yield page, tables.fill(page.read_text(encoding="utf-8"), {"matrix": matrix})


def stale() -> Iterator[tuple[Path, str]]:
    """The generated files that are not as they should be, with the text they should have.

    One is to be written before the next is asked for: the tables of checks read the sentences.
    """
    return ((path, text) for path, text in documents() if not path.is_file() or path.read_text("utf-8") != text)


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description="Write the generated documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if something is stale")
    check = parser.parse_args().check
    is_stale = False
    for path, text in stale():
        is_stale = True
        print(f"{'stale' if check else 'written'}: {path.relative_to(DOCS.parent)}")  # noqa: T201 - the answer itself
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and is_stale:
        print(f"Run '{COMMAND}' and commit what it writes.", file=sys.stderr)  # noqa: T201 - as above
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
