"""A workshop played again and again: is anybody hit who works, and what is taken back?

A hundred attendees of every habit, made from a seed, so that the truth is known; the
service's own code against it in simulated time, and beside it what others do on the
same trace. Nothing is timed: the figures are the same on every machine.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from . import peers
from .figures import Figures, Line, figures_of
from .habits import AT_THE_LIMIT, make_workshop
from .ours import make_rules, replay_ours
from .people import Workshop
from .room import Room
from .simulated_time import run_simulated
from .truth import Truth

OURS = "the service"
KERNELS = "jupyter_server's culling"
CONNECTED = "jupyter_server's culling, cull_connected"
SERVERS = "jupyterhub-idle-culler"


def run(
    folder: Path, *, seeds: int = 20, attendees: int = 100, hours: float = 3.0
) -> Iterator[Line]:
    """Play so many workshops.

    Args:
        folder: nothing is written.
        seeds: how many, of seeds from 1 on.
        attendees: of each.
        hours: that each lasts.
    """
    found: dict[str, list[Figures]] = {}
    for seed in range(1, seeds + 1):
        figures = play(seed, attendees, hours * 3600)
        for who, of_one in figures.items():
            found.setdefault(who, []).append(of_one)
        print(f"  seed {seed}: {Line(who=OURS, figures=figures[OURS])}", flush=True)
        for line in figures[OURS].false:
            print(f"    FALSE: {line}", flush=True)
    for who, of_all in found.items():
        yield Line(who=who, figures=Figures.sum(of_all), has_aims=who == OURS)
    worst = play_worst(1, attendees, hours * 3600)
    yield Line(who="the service, everybody back right at the limit", figures=worst)
    for line in worst.false:
        print(f"    FALSE: {line}", flush=True)


def play_worst(seed: int, attendees: int, seconds: float) -> Figures:
    """Let everybody come back within a minute after the limit, under the service."""
    made = make_workshop(seed, attendees, seconds, AT_THE_LIMIT)
    workshop = replace(made, needs=((0.0, seconds),))
    return _play_ours(workshop, Truth(workshop, make_rules().idle()))


def _play_ours(workshop: Workshop, truth: Truth) -> Figures:
    room = Room(workshop, truth)
    with peers.quiet():
        ours = run_simulated(replay_ours(room))
    return figures_of(room, ours.events)


def play(seed: int, attendees: int, seconds: float) -> dict[str, Figures]:
    """Play one workshop under each ruler.

    Args:
        seed: of everything in it.
        attendees: how many.
        seconds: how long it lasts.
    """
    rules = make_rules().idle()
    workshop = make_workshop(seed, attendees, seconds)
    truth, limit = Truth(workshop, rules), rules.needed_after_seconds
    found = {OURS: _play_ours(workshop, truth)}
    with peers.quiet():
        for who, connected in ((KERNELS, False), (CONNECTED, True)):
            room = Room(workshop, truth, is_ours=False)
            peers.cull_kernels(room, limit, connected=connected)
            found[who] = figures_of(room)
        if peers.idle_culler is None:
            print(f"  {SERVERS} is not there: {peers.HOW_TO_INSTALL}", flush=True)
            return found
        room = Room(workshop, truth, is_ours=False)
        peers.cull_servers(room, limit)
        found[SERVERS] = figures_of(room)
    return found
