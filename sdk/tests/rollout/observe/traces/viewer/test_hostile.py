"""The viewer against whoever planted the folder, and pages of other origins: it answers, in bounds, nobody else."""

import os
from pathlib import Path

import httpx
import pytest
from support.traces import TraceMaker, saying

from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.viewer import app, report
from osmosis_ai.rollout.observe.traces.viewer.app import viewer_app
from osmosis_ai.rollout.observe.traces.viewer.report import write_report


def client_of(folder: Path) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=viewer_app(TraceIndex(folder)))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4567")


def made(rollout_id: str = "r1") -> TraceMaker:
    return TraceMaker(rollout_id).start("1 + 2?").turn(1, saying("#### 3")).end(reward=1.0)


async def test_a_folder_whose_name_is_no_text_hides_no_other(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/traces\xff"))
    made().write(folder / "run")
    made().write(Path(os.fsdecode(os.fsencode(folder) + b"/run\xff")))
    async with client_of(folder) as client:
        document = (await client.get("/api/rollouts")).json()
    assert document["source"] == f"{tmp_path}/traces\\udcff"
    run = document["columns"].index("run")
    assert sorted(row[run] for row in document["rows"]) == ["run", "run\\udcff"]
    index = TraceIndex(folder)
    index.refresh()
    assert write_report(index, tmp_path / "report.html").whole == 2


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "²", "٣", "1e3", "0x1"])
async def test_a_number_that_is_none_is_answered(tmp_path: Path, number: str) -> None:
    made().write(tmp_path)
    async with client_of(tmp_path) as client:
        assert (await client.get("/api/rollouts", params={"since": number})).json()["whole"]
        assert (await client.get(f"/api/rollouts/{number}0")).status_code == 404


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_of_another_origin_cannot_have_it_search(tmp_path: Path, site: str) -> None:
    made().write(tmp_path)
    async with client_of(tmp_path) as client:
        for path in ("/api/rollouts", "/api/rollouts/0", "/api/search?word=3"):
            assert (await client.get(path, headers={"Sec-Fetch-Site": site})).status_code == 403
        for own in ("same-origin", "none"):
            assert (await client.get("/api/search?word=3", headers={"Sec-Fetch-Site": own})).status_code == 200
        assert (await client.get("/", headers={"Sec-Fetch-Site": site})).status_code == 200  # a link to the page


async def test_of_more_events_than_a_page_can_list_it_gets_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = made()
    maker.write(tmp_path / "traces")
    for module in (app, report):
        monkeypatch.setattr(module, "MAX_EVENTS", len(maker.lines))
    async with client_of(tmp_path / "traces") as client:
        await client.get("/api/rollouts")
        whole = (await client.get("/api/rollouts/0")).json()
        assert (len(whole["events"]), whole["cut"]) == (len(maker.lines), False)
        maker.delivered().write(tmp_path / "traces")
        await client.get("/api/rollouts")
        cut = (await client.get("/api/rollouts/0")).json()
        assert (cut["events"], cut["cut"]) == (whole["events"], True)
    index = TraceIndex(tmp_path / "traces")
    index.refresh()
    assert write_report(index, tmp_path / "report.html").whole == 0


def test_a_report_is_bounded_also_where_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        TraceMaker(f"r{number}").start("0" * 100_000).end().write(tmp_path / "traces")
    index = TraceIndex(tmp_path / "traces")
    index.refresh()
    monkeypatch.setattr(report, "BLOCK_BYTES", 1)
    monkeypatch.setattr(report, "MAX_UNPACKED_BYTES", 150_000)
    assert write_report(index, tmp_path / "report.html").whole == 1
