"""What the robots are like: seeded, and different for each.

Owns the plans only, as endless series of steps; `robots` carries them out. No step
ever asks for more than the share.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from jupyterhub_gpuworkshop.core.units import MIB

_ARRIVAL_SECONDS = 0.7
"""A class comes in one by one, and all within this time each."""
_MOST_ARRIVAL_SECONDS = 30.0


class Character(str, Enum):
    """What sort of attendee it is."""

    STEADY = "steady"
    """Tries things out: holds some memory, computes for a little, thinks."""
    FORGETFUL = "forgetful"
    """Fills memory, then goes away without a word."""
    TRAINING = "training"
    """Computes for long, with hardly a pause."""


_NOTEBOOKS = {
    Character.STEADY: ("analysis.ipynb", "exercise-1.ipynb", "exercise-2.ipynb"),
    Character.FORGETFUL: ("scratch.ipynb", "untitled.ipynb", "lunch.ipynb"),
    Character.TRAINING: ("train.ipynb", "finetune.ipynb"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Allocate memory, in place of what this kernel holds."""

    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Keep the device busy."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Think:
    """Read, and look out of the window: the notebook stays open."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Close the notebook and leave its memory taken; come back later."""

    seconds: float


Step = Hold | Compute | Think | Forget


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """One robot.

    Attributes:
        character: what sort of attendee it is.
        arrival_seconds: when it comes in.
        notebook: what it works on.
        patience_seconds: how long it waits before it tries again what failed.
        seed: of its plan.
    """

    character: Character
    arrival_seconds: float
    notebook: str
    patience_seconds: float
    seed: int


def make_habits(count: int, seed: int | None, idle_seconds: float) -> list[Habit]:
    """Return so many robots; of two or more one forgets and one computes for long.

    Args:
        count: how many.
        seed: the same seed gives the same robots; None for chance.
        idle_seconds: after how long an idle kernel is reclaimed.
    """
    chance = random.Random(seed)  # noqa: S311  # habits are no secret
    characters = [Character.TRAINING, Character.FORGETFUL][: count if count > 1 else 0]
    while len(characters) < count:
        characters.append(
            chance.choices(list(Character), weights=[2, 1, 1])[0]
            if len(characters) > 1
            else Character.STEADY
        )
    chance.shuffle(characters)
    room = min(_MOST_ARRIVAL_SECONDS, _ARRIVAL_SECONDS * count)
    arrivals = sorted(chance.uniform(0, room) for _ in characters)
    return [
        Habit(
            character=character,
            arrival_seconds=arrival,
            notebook=chance.choice(_NOTEBOOKS[character]),
            patience_seconds=chance.uniform(1, 2) * max(10.0, idle_seconds / 2),
            seed=chance.getrandbits(32),
        )
        for character, arrival in zip(characters, arrivals, strict=True)
    ]


def plan(habit: Habit, share_bytes: int, idle_seconds: float) -> Iterator[Step]:
    """Yield what a robot does once its notebook is open, without end.

    Args:
        habit: the robot.
        share_bytes: what it may hold.
        idle_seconds: after how long an idle kernel is reclaimed: who only thinks is
            back in time, who forgets is not.
    """
    chance = random.Random(habit.seed)  # noqa: S311  # habits are no secret
    away = max(3 * idle_seconds, 15.0)
    while True:
        if habit.character is Character.TRAINING:
            yield _hold(chance, share_bytes, 0.55, 0.85)
            yield Compute(seconds=chance.uniform(1, 2) * away)
            yield Think(seconds=chance.uniform(0.05, 0.15) * idle_seconds)
        elif habit.character is Character.FORGETFUL:
            yield _hold(chance, share_bytes, 0.45, 0.8)
            yield Compute(seconds=chance.uniform(1, 4))
            yield Forget(seconds=chance.uniform(1, 2) * away)
        else:
            for _ in range(chance.randint(2, 6)):
                yield _hold(chance, share_bytes, 0.15, 0.6)
                yield Compute(seconds=chance.uniform(1, 8))
                yield Think(seconds=chance.uniform(0.1, 0.45) * idle_seconds)
            if chance.random() < 0.25:
                yield Forget(seconds=chance.uniform(1, 1.5) * away)


def _hold(chance: random.Random, share_bytes: int, low: float, high: float) -> Hold:
    """People think in round numbers: a multiple of 16 MiB where there is one."""
    wanted = int(share_bytes * chance.uniform(low, high))
    return Hold(memory_bytes=wanted // (16 * MIB) * (16 * MIB) or wanted)
