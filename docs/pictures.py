"""``python -m docs.pictures``: makes the picture of the viewer anew, so that it shows what there is.

Needs Chromium. The rollouts are those of the example: right ones, and of a policy that errs.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
POLICY = """
from osmosis_ai.rollout.run.policies import ArithmeticPolicy


class Policy(ArithmeticPolicy):
    async def chat_completions(self, messages, **kwargs):
        question = messages[1]["content"]
        if len(question) % 7 == 3:
            raise ConnectionError("the model server went away")
        result = await super().chat_completions(messages, **kwargs)
        if len(question) % 7 == 5 and not result.tool_calls:
            result.message["content"] = "Let me see. #### 12"
        return result
"""


def main() -> int:
    """Write ``docs/viewer.png``."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write("There is no Chromium here: install it, and run this again.\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="osmosis-pictures-") as folder:
        (Path(folder) / "errs.py").write_text(POLICY, encoding="utf-8")
        traces, page = Path(folder) / "rollout_logs", Path(folder) / "report.html"
        _osmosis("trainer", "-m", "server:agent_loop", "-d", "test_data.jsonl", "--log", str(traces), "-q", path=folder)
        _osmosis(
            *("trainer", "-m", "server:agent_loop", "-d", "test_data.jsonl", "--policy", "errs:Policy"),
            *("--log", str(traces), "-q"),
            path=folder,
        )
        _osmosis("view", traces.name, "-o", page.name, path=folder, cwd=Path(folder))
        subprocess.run(  # noqa: S603 - a browser, with a page of our own
            [
                *(
                    chromium,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--hide-scrollbars",
                    "--window-size=1280,720",
                ),
                *("--virtual-time-budget=5000", f"--screenshot={DOCS / 'viewer.png'}", page.as_uri()),
            ],
            check=True,
            capture_output=True,
        )
    return 0


def _osmosis(*arguments: str, path: str, cwd: Path = DOCS.parent) -> None:
    """Run the command; that rollouts fail is no matter here."""
    subprocess.run(  # noqa: S603 - this very interpreter
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = ['.', {path!r}]\nfrom osmosis_ai.cli import main\nsys.exit(main())",
            *arguments,
        ],
        cwd=cwd,
        check=False,
        capture_output=True,
    )


if __name__ == "__main__":
    sys.exit(main())
