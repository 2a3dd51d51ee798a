"""Whether a reward comes to `is_right` is read from its source, as far as names lead."""

from collections.abc import Callable
from pathlib import Path

import pytest

from osmosis_ai.rollout.run.comparing_code import agent_scores_by_is_right, comes_to_is_right

Files = Callable[..., None]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.chdir(tmp_path)

    def write(**texts: str) -> None:
        for name, text in texts.items():
            path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


SCORE = """
from osmosis_ai.rollout import is_right
def score(s, t): return is_right(s, t)
def other(s, t): return 1.0
"""
IN_USE = {
    "by itself": SCORE.replace("score", "agent_loop"),
    "under another name": "from osmosis_ai.rollout import is_right as same\ndef agent_loop(s, t): return same(s, t)",
    "as an attribute": "import osmosis_ai.rollout\ndef agent_loop(s, t): return osmosis_ai.rollout.is_right(s, t)",
    "of a module": "from osmosis_ai import rollout as r\ndef agent_loop(s, t): return r.is_right(s, t)",
    "where it is": "from osmosis_ai.rollout.core.answers import is_right\nagent_loop = lambda s, t: is_right(s, t)",
    "in a method": "from rewards import score\nclass A:\n    def run(self): return score('', 1)\nagent_loop = A()",
    "in a base": "from rewards import score\nclass B:\n    s = score\nclass A(B): ...\nagent_loop: A = A()",
    "imported late": "def agent_loop():\n    from rewards import score\n    return score('', '')",
    "by module": "import rewards\ndef agent_loop(): return rewards.score('', '')",
    "in a package": "from pack.scores import fine\nagent_loop = fine",
    "in a branch": "try:\n    import gone\nexcept E:\n    from rewards import score\nif True:\n    agent_loop = score",
    "re-exported": "from rewards import score as agent_loop",
}
NOT_IN_USE = {
    "another function of its file": "from rewards import other\ndef agent_loop(): return other('', '')",
    "imported alone": "from osmosis_ai.rollout import is_right\ndef agent_loop(): return 1.0",
    "of somebody else": "from elsewhere import is_right\ndef agent_loop(): return is_right('', 1)",
    "no Python": "def (",
    "not there": "agent = 1",
    "itself again": "def agent_loop(): return other()\ndef other(): return agent_loop()",
}


@pytest.mark.parametrize("text", IN_USE.values(), ids=IN_USE)
def test_it_is_found(text: str, files: Files) -> None:
    files(
        server=text,
        rewards=SCORE,
        pack____init__="",
        pack__scores="from ..rewards import score\nfrom rewards import score as fine",
    )
    assert comes_to_is_right(["server:agent_loop"])


@pytest.mark.parametrize("text", NOT_IN_USE.values(), ids=NOT_IN_USE)
def test_it_is_not_found_where_it_is_not_used(text: str, files: Files) -> None:
    files(server=text, rewards=SCORE)
    assert not comes_to_is_right(["server:agent_loop", "gone:agent_loop"])


def test_the_reward_of_mcp_tools_is_that_of_main_py_or_the_one_named(files: Files, tmp_path: Path) -> None:
    files(tools__main="from helper import compute_reward", tools__helper=SCORE.replace("score", "compute_reward"))
    files(own__main="def compute_reward(s, t): return 1.0", rewards=SCORE)
    assert agent_scores_by_is_right(None, "tools")
    assert not agent_scores_by_is_right(None, "own")
    assert agent_scores_by_is_right(None, "own", "rewards:score")
    assert not agent_scores_by_is_right(None, "tools", "rewards:other")
    assert not agent_scores_by_is_right(None, "http://127.0.0.1:1/mcp")
    assert agent_scores_by_is_right(None, "http://127.0.0.1:1/mcp", "rewards:score")
    assert not agent_scores_by_is_right(None)
