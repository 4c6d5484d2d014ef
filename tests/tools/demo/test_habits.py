"""The robots' plans: seeded, different, and never beyond the share."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.tools.demo.habits import (
    Character,
    Compute,
    Forget,
    Habit,
    Hold,
    Step,
    Think,
    make_habits,
    plan,
)
from jupyterhub_gpuworkshop.tools.demo.robots import cell_of


def steps_of(habit: Habit, share_bytes: int, idle_seconds: float) -> list[Step]:
    return list(itertools.islice(plan(habit, share_bytes, idle_seconds), 200))


@given(
    count=st.integers(2, 60),
    seed=st.integers(),
    share_bytes=st.integers(16 * MIB, 80 * GIB),
    idle_seconds=st.floats(1, 7200),
)
def test_no_robot_ever_asks_for_more_than_its_share(
    count: int, seed: int, share_bytes: int, idle_seconds: float
) -> None:
    for habit in make_habits(count, seed, idle_seconds):
        for step in steps_of(habit, share_bytes, idle_seconds):
            if isinstance(step, Hold):
                assert 0 < step.memory_bytes <= share_bytes


@given(count=st.integers(2, 60), seed=st.integers() | st.none())
def test_of_two_or_more_one_forgets_and_one_computes_for_long(
    count: int, seed: int | None
) -> None:
    characters = [habit.character for habit in make_habits(count, seed, 60)]

    assert len(characters) == count
    assert Character.FORGETFUL in characters
    assert Character.TRAINING in characters


@given(seed=st.integers(), idle_seconds=st.floats(1, 7200))
def test_who_thinks_is_back_in_time_and_who_forgets_is_not(
    seed: int, idle_seconds: float
) -> None:
    for habit in make_habits(12, seed, idle_seconds):
        for step in steps_of(habit, GIB, idle_seconds):
            if isinstance(step, Think):
                assert step.seconds < idle_seconds / 2
            if isinstance(step, Forget):
                assert step.seconds >= 3 * idle_seconds


def test_who_trains_never_forgets_and_computes_longer_than_the_idle_timeout() -> None:
    trains = next(
        habit
        for habit in make_habits(2, 1, 20)
        if habit.character is Character.TRAINING
    )
    steps = steps_of(trains, GIB, 20)

    assert not any(isinstance(step, Forget) for step in steps)
    assert all(step.seconds >= 60 for step in steps if isinstance(step, Compute))


def test_a_seed_gives_the_same_robots_and_plans_again() -> None:
    first, second = make_habits(8, 5, 60), make_habits(8, 5, 60)

    assert first == second
    assert first != make_habits(8, 6, 60)
    assert steps_of(first[3], GIB, 60) == steps_of(second[3], GIB, 60)


def test_robots_have_plans_of_their_own() -> None:
    plans = [steps_of(habit, GIB, 60) for habit in make_habits(12, 5, 60)]

    assert all(a != b for a, b in itertools.combinations(plans, 2))


def test_no_attendees_are_no_robots() -> None:
    assert make_habits(0, 1, 60) == []


def test_a_class_comes_in_within_half_a_minute() -> None:
    arrivals = [habit.arrival_seconds for habit in make_habits(500, 1, 60)]

    assert arrivals == sorted(arrivals)
    assert 0 <= arrivals[0] <= arrivals[-1] <= 30


@pytest.mark.parametrize(
    ("step", "code", "seconds"),
    [
        (
            Hold(memory_bytes=GIB),
            "weights = None; weights = simcuda.allocate(1073741824)",
            0,
        ),
        (Compute(seconds=3.5), "simcuda.compute(3.50)", 3.5),
    ],
)
def test_a_step_is_a_cell(step: Step, code: str, seconds: float) -> None:
    assert cell_of(step) == (code, seconds)


def test_thinking_is_no_cell() -> None:
    with pytest.raises(TypeError, match="has no cell"):
        cell_of(Think(seconds=1))
