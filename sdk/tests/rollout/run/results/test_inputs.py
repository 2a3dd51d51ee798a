from pathlib import Path

import pytest

from osmosis_ai.rollout.run.results.inputs import inputs_of, source_files


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An agent with a helper, a package and a reward function, as the current directory."""
    files = {
        "agent.py": "import json\nimport osmosis_ai\nfrom parts import tools\nimport helper\nimport agent\n1 / 0\n",
        "helper.py": "def late():\n    import lazily\n",
        "lazily.py": "",
        "broken.py": "def (",
        "unused.py": "",
        "parts/__init__.py": "from .inner import thing\nfrom .... import nowhere\n",
        "parts/inner.py": "",
        "parts/tools.py": "import broken\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_users_own_files_are_found_without_running_them(project: Path) -> None:
    found = {str(file.relative_to(project.resolve())) for file in source_files(["agent"])}
    assert found == {
        "agent.py",
        "helper.py",
        "lazily.py",
        "broken.py",
        "parts/__init__.py",
        "parts/inner.py",
        "parts/tools.py",
    }


def test_a_module_that_is_not_there_has_no_files(project: Path) -> None:
    assert source_files(["gone", "json.gone"]) == set()


def test_a_module_that_is_named_may_be_anywhere_python_looks(project: Path) -> None:
    [file] = source_files(["json.tool"])
    assert file.name == "tool.py"


def test_tools_of_a_directory_and_a_dataset_that_is_gone_are_told_apart(project: Path) -> None:
    inputs = inputs_of("gone.jsonl", modules=[None], mcp="parts", model={"name": "m"}, settings={})
    assert inputs["dataset"] == {"gone.jsonl": None}
    assert sorted(inputs["agent"]) == ["parts/__init__.py", "parts/inner.py", "parts/tools.py"]
