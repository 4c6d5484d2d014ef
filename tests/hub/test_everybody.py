"""`gpuworkshop prestart` and `stop-all` at a real hub."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.roster import Attendee, Roster
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.hub.roster_file import change_roster

from .running_hub import RunningHub, free_port

pytestmark = pytest.mark.hub


def _run(hub: RunningHub, *arguments: str) -> Result:
    at = (f"--api-url=http://127.0.0.1:{hub.port}/hub/api", f"--token={hub.token}")
    roster = f"--roster={hub.folder / 'roster.json'}"
    return CliRunner().invoke(main, [arguments[0], *at, roster, *arguments[1:]])


def test_everyones_server_is_started_stopped_and_failures_say_why(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    names = [f"a{number}" for number in range(5)]
    people = [
        Attendee(name=name, code_hash="", group="team", share=Share.parse("1/4"))
        for name in names
    ]
    roster = Roster(attendees=tuple(people))
    change_roster(tmp_path / "roster.json", lambda _: roster, new=True)
    # One GPU, a quarter each: the fifth finds no room.
    hub = make_hub(
        gpus=1, early='c.JupyterHub.authenticator_class = "gpuworkshop-roster"\n'
    )
    hub.start()
    done = _run(hub, "prestart", "--at-once", "2")
    assert done.exit_code == 1, done.output
    assert "4 of 5 run." in done.output
    (failed,) = [line for line in done.output.splitlines() if line.startswith("  a")]
    assert "no GPU has room" in failed or "share" in failed, failed
    assert sorted(hub.user("a0")["groups"]) == ["gpu-share:1/4", "team"]
    running = [name for name in names if hub.server(name)]
    assert len(running) == 4
    assert len(hub.leases()) == 4
    again = _run(hub, "prestart", *running)
    assert again.exit_code == 0, again.output
    assert "4 of 4 run." in again.output
    mistyped = _run(hub, "prestart", "a0", "ao")
    assert mistyped.exit_code == 1
    assert f"Not on the roster {tmp_path / 'roster.json'}: ao." in mistyped.output
    assert hub.api("GET", "users/ao").status_code == 404

    refused = CliRunner().invoke(
        main,
        ["stop-all", "--roster", str(tmp_path / "roster.json")],
        input="token\nn\n",
        env={"JUPYTERHUB_API_TOKEN": ""},
    )
    assert refused.exit_code == 1
    assert len(hub.servers_alive()) == 4, "nothing is stopped before the yes"
    stopped = _run(hub, "stop-all", "--yes")
    assert stopped.exit_code == 0, stopped.output
    assert "5 of 5 are stopped." in stopped.output
    assert not hub.servers_alive()
    assert hub.leases() == []


def test_a_wrong_token_and_a_hub_that_is_away_are_one_sentence(
    make_hub: Callable[..., RunningHub],
) -> None:
    hub = make_hub().start()
    hub.token, good = "wrong", hub.token
    refused = _run(hub, "prestart", "ada")
    assert refused.exit_code == 1
    assert "refuses the token" in refused.output
    assert "JUPYTERHUB_API_TOKEN" in refused.output
    hub.token, hub.port = good, free_port()
    away = _run(hub, "stop-all", "--yes", "ada")
    assert away.exit_code == 1
    assert "does not answer" in away.output
