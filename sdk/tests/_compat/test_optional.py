"""Optional dependencies are found without being loaded, and asked for by name."""

import subprocess
import sys
import types
from operator import attrgetter

import pytest

from osmosis_ai._compat import optional as _compat


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_module_loads_none_of_the_optional_packages() -> None:
    loaded = run_python(
        "import sys\n"
        "import osmosis_ai._compat.optional\n"
        "print([n for n in ('fastapi', 'uvicorn', 'pydantic_settings') if n in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_the_flags_tell_what_is_installed_and_the_modules_load_on_use() -> None:
    assert _compat.FASTAPI_AVAILABLE is True
    assert isinstance(_compat.fastapi, types.ModuleType)
    assert _compat.fastapi.__name__ == "fastapi"
    assert isinstance(_compat.uvicorn, types.ModuleType)


def test_a_package_that_cannot_be_imported_is_none_and_its_flag_false() -> None:
    seen = run_python(
        "import sys\n"
        "sys.modules['uvicorn'] = None\n"
        "from osmosis_ai.rollout import _compat\n"
        "print(_compat.UVICORN_AVAILABLE, _compat.uvicorn, _compat.FASTAPI_AVAILABLE)"
    )
    assert seen.strip() == "False None True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="flask"):
        attrgetter("flask")(_compat)


def test_import_optional_returns_the_module_and_whether_it_is_there() -> None:
    module, available = _compat.import_optional("json.decoder")
    assert available is True
    assert module is sys.modules["json.decoder"]
    assert _compat.import_optional("no_such_module_anywhere", "no-such-package") == (None, False)


def test_require_optional_returns_an_importable_module() -> None:
    assert _compat.require_optional("json") is sys.modules["json"]


@pytest.mark.parametrize(
    ("package", "extra", "hint"),
    [
        ("FastAPI", "server", "pip install osmosis-ai[server]"),
        ("nope-package", None, "pip install osmosis-ai[nope-package]"),
        (None, None, "pip install osmosis-ai[no_such_module_anywhere]"),
    ],
)
def test_require_optional_says_what_is_missing_for_what_and_how_to_get_it(
    package: str | None, extra: str | None, hint: str
) -> None:
    with pytest.raises(ImportError) as caught:
        _compat.require_optional("no_such_module_anywhere", package, "the rollout server", extra)
    message = str(caught.value)
    assert message.startswith(f"{package or 'no_such_module_anywhere'} is required for the rollout server")
    assert message.endswith(hint)


def test_is_installed_copes_with_a_module_that_has_no_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("made_by_hand")
    stand_in.__spec__ = None
    monkeypatch.setitem(sys.modules, "made_by_hand", stand_in)
    assert _compat._is_installed("made_by_hand")
    assert not _compat._is_installed("no_such_module_anywhere")
