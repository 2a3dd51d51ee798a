import asyncio

import pytest

from osmosis_ai.rollout.run.data.dataset import DatasetRow
from osmosis_ai.rollout.run.driver import Job, RunPlan, Stops, drive


def rows_of(count: int, start: int = 0) -> list[tuple[int, DatasetRow]]:
    numbers = range(start, start + count)
    return [(number, {"ground_truth": "1", "user_prompt": f"{number}", "system_prompt": "s"}) for number in numbers]


PAIR = ("primary", "baseline")


def test_runs_come_row_by_row_then_repeat_by_repeat_then_model_by_model() -> None:
    jobs = list(RunPlan(5, 2, PAIR).jobs(rows_of(2, 5)))
    assert [(job.row_index, job.repeat, job.tag) for job in jobs] == [
        (row_index, repeat, tag) for row_index in (5, 6) for repeat in (0, 1) for tag in PAIR
    ]
    assert sorted(job.slot for job in jobs) == list(range(8))
    assert [(job.repeat, job.tag) for job in sorted(jobs, key=lambda job: job.slot)][:4] == [
        (repeat, tag) for tag in PAIR for repeat in (0, 1)
    ]


def test_a_saved_run_is_found_again_by_its_slot() -> None:
    plan = RunPlan(5, 2, PAIR)
    for job in plan.jobs(rows_of(3, 5)):
        assert plan.slot_of({"row_index": job.row_index, "run_index": job.repeat, "model_tag": job.tag}) == job.slot
        assert plan.row_of(job.slot) == job.row_index


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"row_index": 4, "repeat": 0},
        {"row_index": 5, "repeat": 2},
        {"row_index": 5, "repeat": -1},
        {"row_index": "5", "repeat": 0},
        {"row_index": 5, "repeat": 0, "model_tag": "baseline"},
    ],
)
def test_what_is_no_run_of_the_plan_has_no_slot(record: dict[str, object]) -> None:
    assert RunPlan(5, 2).slot_of(record) is None


def test_what_is_done_is_left_out() -> None:
    assert [job.row_index for job in RunPlan().jobs(rows_of(4), {0, 2}.__contains__)] == [1, 3]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_model_that_answers_no_more_stops_alone(concurrency: int) -> None:
    made: list[tuple[int, str | None]] = []

    async def run_one(job: Job) -> tuple[int, str | None]:
        await asyncio.sleep(0)
        return job.row_index, "gone" if job.tag == "baseline" else None

    stops = await drive(
        RunPlan(0, 1, PAIR).jobs(rows_of(9)),
        run_one,
        lambda job, row_index: made.append((row_index, job.tag)),
        concurrency=concurrency,
        tags=PAIR,
    )
    assert stops.reasons == {"baseline": "gone"}
    assert [row_index for row_index, tag in made if tag == "primary"] == list(range(9))
    assert sum(tag == "baseline" for _, tag in made) <= concurrency


async def test_once_every_model_has_stopped_no_further_row_is_read() -> None:
    async def run_one(job: Job) -> tuple[None, str]:
        return None, f"gone at row {job.row_index}"

    jobs = RunPlan().jobs(rows_of(9))
    stops = await drive(jobs, run_one, lambda job, result: None, concurrency=1, stops=Stops())
    assert stops.first_reason == "gone at row 0"
    assert next(jobs).row_index == 1


async def test_runs_that_wait_for_nothing_let_the_loop_turn() -> None:
    turns: list[int] = []

    async def run_one(job: Job) -> tuple[int, str | None]:
        asyncio.get_running_loop().call_soon(turns.append, job.row_index)
        return job.row_index, None

    seen: list[int] = []
    await drive(RunPlan().jobs(rows_of(5)), run_one, lambda job, result: seen.append(len(turns)), concurrency=1)
    assert seen == [0, 1, 2, 3, 4]
