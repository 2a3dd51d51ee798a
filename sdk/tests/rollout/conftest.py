import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.axe import AxeError, axe_source
from support.browser import Browser, chromium
from support.http_peer import HttpPeer
from support.rollout_client import ROLLOUT_ID, SECRET
from support.rollouts import settings_without_an_environment

from osmosis_ai.rollout.core.settings import configure, reset_settings
from osmosis_ai.rollout.wire import channels
from osmosis_ai.rollout.wire.client import OsmosisLLMClient


@pytest.fixture
def default_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Settings as they are without an environment."""
    monkeypatch.chdir(tmp_path)
    configure(settings_without_an_environment().model_copy(deep=True))
    yield
    reset_settings()


@pytest.fixture(params=["direct", "through httpx"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to a trainer: the SDK's own, and httpx's, which goes where the parser of ours is not installed."""
    if request.param == "through httpx":
        monkeypatch.setattr(channels, "httptools_is_here", lambda: False)


@pytest.fixture
async def peer(way: None) -> AsyncIterator[HttpPeer]:
    """A trainer whose every answer is scripted."""
    async with HttpPeer() as peer:
        yield peer
        await channels.close_shared_channels()


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client would have slept; it does not."""
    slept: list[float] = []
    really_sleep = asyncio.sleep

    async def note(delay: float) -> None:
        if delay:
            slept.append(delay)
        await really_sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    return slept


@pytest.fixture
def client(default_settings: None, peer: HttpPeer, delays: list[float]) -> OsmosisLLMClient:
    """A rollout's client to ``peer``; its backoff takes no time."""
    return OsmosisLLMClient(peer.url, ROLLOUT_ID, api_key=SECRET)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all of a worker's tests."""
    executable = chromium()
    assert executable is not None
    with Browser(executable, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Browser]:
    """The browser; a page that complains fails its test."""
    browser.complaints.clear()
    browser.expected.clear()
    browser.resize(1440, 900)
    browser.prefer("light")
    yield browser
    browser.open("about:blank")  # before its server is gone
    assert browser.complaints == []


@pytest.fixture
def axe(pytestconfig: pytest.Config) -> str:
    """axe-core, or a reason why there is none here."""
    assert pytestconfig.cache is not None
    try:
        return axe_source(pytestconfig.cache.mkdir("axe"))
    except AxeError as reason:
        pytest.skip(str(reason))
