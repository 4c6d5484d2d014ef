"""Attendees by their habits, made from a seed.

Owns how likely everything is. It knows nothing of the service, and nothing of what
would be easy or hard for it.
"""

import random
import uuid
from collections.abc import Callable

from jupyterhub_gpuworkshop.core.units import GIB

from .diary import MINUTE, Diary, Notebook
from .people import Attendee, Doing, Kernel, Span, Terminal, Workshop

_OLD_SERVERS = 0.05
"""How many servers take all that a page sends for activity."""
_RELOAD_EVERY_SECONDS = 40 * MINUTE


def _thinker(diary: Diary) -> None:
    diary.open()
    diary.work_until(diary.end)


def _trainer(diary: Diary) -> None:
    """Train in a cell that prints nothing, or little; at times go for a walk.

    One such cell in five waits: for a download, in a debugger, for an answer.
    """
    diary.open()
    while diary.now < diary.end:
        diary.work_until(diary.now + diary.minutes(5, 25))
        seconds = diary.minutes(15, 70)
        if diary.random.random() < 0.3:
            diary.close_laptop(seconds)
        if diary.random.random() < 0.2:
            diary.cell(seconds, waits=True)
        else:
            diary.cell(seconds, workers=diary.random.choice((0, 0, 2, 4)))
        diary.think()


def _background(diary: Diary) -> None:
    """Train in a thread, or a child process, behind a kernel that says idle."""
    diary.open(most_bytes=4.0 * GIB)
    while diary.now < diary.end:
        diary.work_until(diary.now + diary.minutes(5, 20))
        diary.cell(diary.between(0.5, 5))
        seconds = diary.minutes(25, 80)
        match diary.random.choice(("seldom", "hard", "workers", "child")):
            case "seldom":
                gpu = diary.between(0.02, 0.06)
                diary.behind(seconds, gpu=gpu, cpu=diary.between(0.005, 0.04))
            case "hard":
                diary.behind(seconds, gpu=diary.between(0.3, 1.0), cpu=0.8)
            case "workers":
                gpu = diary.between(0.1, 0.9)
                diary.behind(seconds, gpu=gpu, cpu=0.3, workers=4, worker_cpu=0.4)
            case _:
                gpu, size_bytes = diary.between(0.1, 1.0), 2 * GIB
                diary.behind(seconds, gpu=gpu, cpu=0.5, child_bytes=size_bytes)
        if diary.random.random() < 0.3:
            diary.close_laptop(seconds)
        diary.now += seconds
        diary.think()


def _preprocessor(diary: Diary) -> None:
    """Prepare data in a thread: processor time only, and for some in bursts."""
    diary.open()
    while diary.now < diary.end:
        diary.work_until(diary.now + diary.minutes(5, 20))
        diary.cell(diary.between(0.5, 5))
        seconds = diary.minutes(25, 70)
        match diary.random.choice(("steady", "workers", "bursts")):
            case "steady":
                diary.behind(seconds, cpu=diary.between(0.15, 1.0))
            case "workers":
                diary.behind(seconds, workers=3, worker_cpu=diary.between(0.1, 0.9))
            case _:
                _bursts(diary, seconds)
        if diary.random.random() < 0.3:
            diary.close_laptop(seconds)
        diary.now += seconds
        diary.think()


def _bursts(diary: Diary, seconds: float) -> None:
    """Wait for the disk most of the time, in one thread all the while."""
    begin = diary.now
    diary.behind(seconds)
    while diary.now < begin + seconds - MINUTE:
        burst_seconds = diary.between(5, 30)
        diary.behind(burst_seconds, cpu=diary.between(0.3, 1.0))
        diary.now += burst_seconds + diary.minutes(1, 4)
    diary.now = begin


def _hoarder(diary: Diary) -> None:
    """Open one notebook after another and close none."""
    for _ in range(diary.random.randint(3, 5)):
        diary.open(most_bytes=1.5 * GIB)
        diary.work_until(diary.now + diary.minutes(10, 30))
    while diary.now < diary.end:
        diary.at = diary.random.randrange(len(diary.notebooks))
        diary.work_until(diary.now + diary.minutes(10, 40))


def _widget_user(diary: Diary) -> None:
    """Play with sliders, and leave the page open."""
    diary.open()
    diary.cell(diary.between(5, 40))
    if diary.random.random() < 0.6:
        diary.chat_from_now()
    while diary.now < diary.end:
        until = diary.now + diary.minutes(15, 60)
        while diary.now < until:
            diary.move_sliders()
            diary.now += diary.minutes(1, 8)
        diary.now += diary.minutes(25, 70)


def _terminal_user(diary: Diary) -> None:
    """Try in a notebook, then train in a terminal beside it."""
    diary.open(most_bytes=3.0 * GIB)
    while diary.now < diary.end:
        diary.work_until(diary.now + diary.minutes(5, 20))
        seconds = diary.minutes(30, 120)
        stays = diary.random.random() < 0.5
        diary.terminals.append(
            Terminal(
                begin=diary.now,
                end=diary.now + seconds,
                closed_at=diary.now + (seconds if stays else diary.minutes(1, 5)),
                memory_bytes=int(diary.between(1.0, 4.0) * GIB),
                gpu=diary.between(0.1, 1.0),
                cpu=diary.between(0.2, 1.0),
            )
        )
        if not stays and diary.random.random() < 0.5:
            diary.close_laptop(seconds)
        diary.now += seconds
        diary.think()


def _forgetful(diary: Diary) -> None:
    """Work for a while, be done, and leave the tab open."""
    diary.open()
    diary.work_until(diary.end * diary.between(0.08, 0.5))


def _luncher(diary: Diary) -> None:
    """Go to lunch in the middle of it, and come back."""
    diary.open()
    diary.work_until(diary.end * diary.between(0.15, 0.55))
    seconds = diary.minutes(30, 60)
    if diary.random.random() < 0.4:
        diary.close_laptop(seconds)
    diary.now += seconds
    diary.work_until(diary.end)


def _goer_home(diary: Diary) -> None:
    """Work for a while, close the laptop and go."""
    diary.open()
    diary.work_until(diary.end * diary.between(0.1, 0.6))
    diary.close_laptop(diary.end)


def _returner(diary: Diary) -> None:
    """Come back again and again within a minute after the limit, as if to be hit."""
    diary.open()
    diary.cell(5)
    moves = diary.random.random() < 0.5
    while diary.now < diary.end:
        diary.now += diary.minutes(20, 21)
        if moves:
            diary.move_sliders()
        else:
            diary.cell(diary.between(0.5, 20))


Habits = dict[str, tuple[int, Callable[[Diary], None]]]

HABITS: Habits = {
    "thinker": (28, _thinker),
    "trainer behind a silent cell": (12, _trainer),
    "background thread on the GPU": (10, _background),
    "preprocessing thread": (8, _preprocessor),
    "tab hoarder": (9, _hoarder),
    "widget user": (8, _widget_user),
    "terminal user": (7, _terminal_user),
    "forgotten kernel": (8, _forgetful),
    "at lunch": (6, _luncher),
    "gone home": (4, _goer_home),
}
"""How many of a hundred have each habit, and what it is."""

AT_THE_LIMIT: Habits = {"back right at the limit": (1, _returner)}
"""The worst that can be for who acts at the limit: nobody's workshop, but a test."""


def make_workshop(
    seed: int, attendees: int, seconds: float, kinds: Habits = HABITS
) -> Workshop:
    """Return one workshop, the same for the same arguments.

    Args:
        seed: decides everything that is not certain.
        attendees: how many; the habits are dealt out in their shares.
        seconds: how long it lasts.
        kinds: the habits there are.
    """
    dice = random.Random(seed)  # noqa: S311  # a replay is to be the same again
    names = list(kinds)
    weights = [weight for weight, _ in kinds.values()]
    # One of each where there is room for it, the rest as they fall.
    habits = dice.sample(names, min(attendees, len(names)))
    habits += dice.choices(names, weights, k=attendees - len(habits))
    return Workshop(
        seed=seed,
        seconds=seconds,
        attendees=tuple(
            _make_attendee(dice, f"attendee-{n:03}", habit, kinds[habit][1], seconds)
            for n, habit in enumerate(habits)
        ),
        needs=_make_needs(dice, seconds),
    )


def _make_attendee(
    dice: random.Random,
    name: str,
    habit: str,
    live: Callable[[Diary], None],
    seconds: float,
) -> Attendee:
    begin = dice.uniform(0, min(15 * MINUTE, seconds / 8))
    diary = Diary(random=dice, end=seconds, now=begin + dice.uniform(10, 120))
    live(diary)
    tab = _without((begin, seconds), diary.closed)
    kernels = tuple(
        _make_kernel(dice, notebook, tab)
        for notebook in diary.notebooks
        if any(work.begin < seconds for work in notebook.works)
    )
    return Attendee(
        name=name,
        habit=habit,
        begin=begin,
        kernels=kernels,
        terminals=tuple(diary.terminals),
        tab=tab,
        counts_messages=dice.random() < _OLD_SERVERS,
    )


def _make_kernel(
    dice: random.Random, notebook: Notebook, tab: tuple[Span, ...]
) -> Kernel:
    works = sorted(notebook.works, key=lambda work: work.begin)
    opened_at = works[0].begin
    touches = [work.end for work in works if work.doing is Doing.MOVE]
    for begin, end in tab:
        # A page that is loaded again, or is back after a lid was closed.
        at = max(begin, opened_at)
        while at < end:
            touches.append(at)
            at += dice.expovariate(1 / _RELOAD_EVERY_SECONDS)
        at = max(begin, notebook.chatter[0])
        while notebook.chatter_cpu and at < min(end, notebook.chatter[1]):
            touches.append(at)
            at += dice.uniform(1, 10)
    return Kernel(
        id=str(uuid.UUID(int=dice.getrandbits(128), version=4)),
        memory_bytes=notebook.memory_bytes,
        works=tuple(works),
        touches=tuple(sorted(touches)),
        idle_cpu=dice.uniform(0.001, 0.012),
        chatter=notebook.chatter,
        chatter_cpu=notebook.chatter_cpu,
    )


def _make_needs(dice: random.Random, seconds: float) -> tuple[Span, ...]:
    """Let somebody be refused, wait, get a share or give up; and again later."""
    needs: list[Span] = []
    at = seconds * dice.uniform(0.1, 0.25)
    while at < seconds:
        end = min(seconds, at + dice.uniform(10, 45) * MINUTE)
        needs.append((at, end))
        at = end + dice.uniform(5, 30) * MINUTE
    return tuple(needs)


def _without(span: Span, holes: list[Span]) -> tuple[Span, ...]:
    """Return what is left of a span."""
    left, at = [], span[0]
    for begin, end in sorted(holes):
        if begin > at:
            left.append((at, min(begin, span[1])))
        at = max(at, end)
    if at < span[1]:
        left.append((at, span[1]))
    return tuple(left)
