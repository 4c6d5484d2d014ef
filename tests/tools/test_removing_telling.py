"""The list of who would be removed."""

import io
from pathlib import Path

from rich.console import Console

from jupyterhub_gpuworkshop.tools.removing.homes import Fate, Judged
from jupyterhub_gpuworkshop.tools.removing.planning import Going, Plan
from jupyterhub_gpuworkshop.tools.removing.telling import show_plan


def _listed(*going: Going) -> str:
    out = io.StringIO()
    plan = Plan(going=going, left=())
    show_plan(plan, Console(file=out, width=120), has_service=True)
    return out.getvalue()


def _never_came(number: int) -> Going:
    home = Judged(fate=Fate.NONE)
    return Going(name=f"a{number:03}", has_account=False, home=home)


def _came(name: str) -> Going:
    home = Judged(fate=Fate.GOES, path=Path("/home/jupyter-ada"))
    return Going(name=name, has_account=True, home=home)


def test_of_many_who_never_came_the_list_has_one_line() -> None:
    told = _listed(_came("ada"), *map(_never_came, range(95)))
    assert "96 would be removed" in told
    assert "/home/jupyter-ada" in told
    assert "95 more, who never came" in told
    assert "a001" not in told


def test_a_few_who_never_came_are_named() -> None:
    told = _listed(_came("ada"), *map(_never_came, range(3)))
    assert "a002" in told
    assert "who never came" not in told
