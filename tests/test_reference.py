"""docs/api: generated, and complete."""

import re

from docs.generate import commands, reference

SECOND_NAMES = {"LocalTestBatchResult", "LocalTestRunResult"}

PAGES = reference.files()
TEXT = "\n".join(PAGES.values())


def test_every_exported_name_has_an_entry() -> None:
    entries = set(re.findall(r"^### `(\w+)`$", TEXT, re.MULTILINE))

    assert reference.exports() - entries - {"__version__"} - SECOND_NAMES == set()


def test_every_command_has_an_entry() -> None:
    assert re.findall(r"^## `(osmosis .*)`$", TEXT, re.MULTILINE) == [name for name, _ in commands.commands()]


def test_an_entry_has_signature_docstring_and_what_is_raised() -> None:
    entry = PAGES["agent.md"].partition("#### `RolloutContext.chat`")[2].partition("\n####")[0]

    assert "async def chat(messages: list[MessageDict], **kwargs: Any) -> CompletionsResult" in entry
    assert "Generate the next message." in entry
    assert "- `TypeError`: " in entry
    assert "``" not in entry.replace("```", "")
