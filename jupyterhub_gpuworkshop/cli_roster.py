"""`gpuworkshop roster`: arguments only. What its commands do is in `tools.roster`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from jupyterhub_gpuworkshop.core.people import Person
    from jupyterhub_gpuworkshop.tools.roster.changes import Done
    from jupyterhub_gpuworkshop.tools.roster.papers import Handout

_FILE = click.Path(path_type=Path, readable=False)
_Command = Callable[..., Any]

_roster_option = click.option(
    "--roster",
    "path",
    type=_FILE,
    help="The roster file. Without it on The Littlest JupyterHub what its config.yaml "
    "says; elsewhere what --workshop says, or roster.json of this folder.",
)
_workshop_option = click.option(
    "--workshop", type=_FILE, help="The workshop file, whose roster.file is meant."
)
_names = click.argument("names", nargs=-1, required=True, metavar="NAME...")


def with_roster(command: _Command) -> _Command:
    """Add the options that say which roster is meant."""
    return _roster_option(_workshop_option(command))


def _with_people(command: _Command) -> _Command:
    for option in (
        click.option("--prefix", default="attendee", help="Of names that are made up."),
        click.option(
            "--csv",
            "csv_file",
            type=click.Path(path_type=Path),
            help="People: columns name, full name, e-mail, group, share; all optional.",
        ),
        click.option("--count", type=click.IntRange(1, 5000), help="So many, unnamed."),
    ):
        command = option(command)
    return command


def _with_handout(command: _Command) -> _Command:
    for option in (
        click.option(
            "--paper", type=click.Choice(["a4", "letter"]), default="a4", help="Of it."
        ),
        click.option("--title", default="GPU workshop", help="On each card."),
        click.option(
            "--merge", type=_FILE, help="Write a CSV for a mail merge here, too."
        ),
        click.option(
            "--cards", type=_FILE, default="cards.html", help="The page to print."
        ),
    ):
        command = option(command)
    return command


_with_address = click.option(
    "--address",
    required=True,
    help="The hub's, as attendees type it: https://hub.example.org, say.",
)


@click.group()
def roster() -> None:
    """Who attends: names, login codes, and the cards that say them."""


@roster.command()
@with_roster
@_with_people
@_with_handout
@_with_address
def make(
    path: Path | None,
    workshop: Path | None,
    count: int | None,
    csv_file: Path | None,
    prefix: str,
    **handout: Any,
) -> None:
    """Begin a roster, and write the cards.

    Give --count 100 for attendee-001 to attendee-100, or --csv people.csv. The codes
    are on the cards and nowhere else: print them, then delete the file.
    """
    from jupyterhub_gpuworkshop.tools.roster import changes

    target, people = roster_place(path, workshop), _people(count, csv_file)
    _tell(target, changes.make(target, people, prefix, _handout(**handout)))


@roster.command()
@with_roster
@_with_people
@_with_handout
@_with_address
def add(
    path: Path | None,
    workshop: Path | None,
    count: int | None,
    csv_file: Path | None,
    prefix: str,
    **handout: Any,
) -> None:
    """Add people, and write cards for them alone. A running hub heeds it at once."""
    from jupyterhub_gpuworkshop.tools.roster import changes

    target, people = roster_place(path, workshop), _people(count, csv_file)
    _tell(target, changes.add(target, people, prefix, _handout(**handout)))


@roster.command()
@_names
@with_roster
@_with_handout
@_with_address
def reset(
    names: tuple[str, ...], path: Path | None, workshop: Path | None, **handout: Any
) -> None:
    """Give attendees new codes, on new cards; the old codes end at once."""
    from jupyterhub_gpuworkshop.tools.roster import changes

    target = roster_place(path, workshop)
    _tell(target, changes.reset(target, names, _handout(**handout)))


@roster.command()
@_names
@with_roster
def remove(names: tuple[str, ...], path: Path | None, workshop: Path | None) -> None:
    """Take attendees or organisers off the roster. Their servers and homes stay."""
    from jupyterhub_gpuworkshop.tools.roster import changes

    target = roster_place(path, workshop)
    done = changes.remove(target, names)
    click.echo(f"{target}: {', '.join(done.names)} cannot log in any more.")
    click.echo(
        "Accounts at the hub stay, with tokens and servers, an organiser's rights too, "
        "until they are deleted on its admin page."
    )


@roster.command()
@click.argument("name")
@click.password_option(help="Asked for where it is not given.")
@with_roster
def organiser(
    name: str, password: str, path: Path | None, workshop: Path | None
) -> None:
    """Let NAME log in as an organiser, an admin of the hub, with a password."""
    from jupyterhub_gpuworkshop.tools.roster import changes

    target = roster_place(path, workshop)
    changes.set_organiser(target, name, password)
    click.echo(f"{target}: {name} may log in as an organiser.")


@roster.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@with_roster
def list_(as_json: bool, path: Path | None, workshop: Path | None) -> None:
    """Print who is on the roster; codes are known to nobody."""
    from jupyterhub_gpuworkshop.tools.roster.listing import (
        entries,
        room_in_words,
        table,
    )

    target = roster_place(path, workshop)
    found = entries(target)
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else table(found))
    if not as_json and (room := room_in_words(target)):
        click.echo(room)


@roster.command("check")
@with_roster
def check_(path: Path | None, workshop: Path | None) -> None:
    """Say whether the hub can use the roster. Exit status: 0 it can, 1 it cannot."""
    from jupyterhub_gpuworkshop.tools.roster.listing import checked

    click.echo(checked(roster_place(path, workshop)))


@roster.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everybody", is_flag=True, help="Everybody.")
@with_roster
def unlock(
    names: tuple[str, ...], everybody: bool, path: Path | None, workshop: Path | None
) -> None:
    """Let in again who typed wrong codes too often."""
    from jupyterhub_gpuworkshop.tools.roster.listing import unlocked

    if bool(names) == everybody:
        raise click.UsageError("Give names, or --all.")
    target = roster_place(path, workshop)
    click.echo(unlocked(target, None if everybody else names))


@roster.command()
@click.option(
    "--servers",
    required=True,
    help="The hubs' addresses, with commas between: https://a.example,https://b.example",
)
@with_roster
@_with_handout
def split(
    servers: str, path: Path | None, workshop: Path | None, **handout: Any
) -> None:
    """Deal the attendees out to several servers, with new codes.

    Writes roster-1.json and cards-1.html for the first, and so on. The roster that is
    split stays as it is, and is of no more use.
    """
    from jupyterhub_gpuworkshop.tools.roster import changes
    from jupyterhub_gpuworkshop.tools.roster.cards import check_address

    target = roster_place(path, workshop)
    addresses = [check_address(one.strip()) for one in servers.split(",")]
    papers = _handout(address=addresses[0], **handout)
    for done, address in zip(
        changes.split(target, addresses, papers), addresses, strict=True
    ):
        click.echo(
            f"{address}: {len(done.names)} attendees; "
            f"{', '.join(str(file) for file in done.written)}"
        )


@roster.command("open-room")
@with_roster
@click.option(
    "--at-most",
    type=click.IntRange(1, 5000),
    required=True,
    help="So many may join, those included who have joined before.",
)
@click.option("--poster", type=_FILE, default="room.html", help="The page to print.")
@click.option("--title", default="GPU workshop", help="On the poster.")
@click.option(
    "--paper", type=click.Choice(["a4", "letter"]), default="a4", help="Of it."
)
@_with_address
def open_room(
    path: Path | None, workshop: Path | None, at_most: int, **poster: Any
) -> None:
    """Let people join by themselves, with a room code and a name of their choice.

    Writes a poster with the code for the room. Run again, it makes a new code, and
    the one before ends. Begins a roster where there is none.
    """
    from jupyterhub_gpuworkshop.tools.roster import room

    target = roster_place(path, workshop)
    opened = room.open_room(target, at_most, room.Poster(**poster))
    click.echo(
        f"{target}: the room is open at {opened.page}: {opened.joined} of {at_most} "
        f"joined.\nRoom code: {opened.code}\n{opened.poster}: shows the code. Print it "
        "or show it in the room. `gpuworkshop roster close-room` ends it."
    )
    if opened.was_open:
        click.echo("The code before is good for nothing now: take its poster down.")


@roster.command("close-room")
@with_roster
def close_room(path: Path | None, workshop: Path | None) -> None:
    """Let nobody join any more. Whoever has joined stays."""
    from jupyterhub_gpuworkshop.tools.roster import room

    target = roster_place(path, workshop)
    joined = room.close_room(target)
    click.echo(f"{target}: the room is closed; {joined} joined and stay.")


def roster_place(path: Path | None, workshop: Path | None) -> Path:
    """Return the roster that those options mean."""
    from jupyterhub_gpuworkshop.tools.tljh_places import host_workshop
    from jupyterhub_gpuworkshop.workshop import Workshop

    if path is not None:
        return path
    source = workshop or host_workshop()
    return Workshop.load(source or {}).roster_file(source or {})


def _people(count: int | None, csv_file: Path | None) -> "list[Person]":
    from jupyterhub_gpuworkshop.core.errors import RosterError
    from jupyterhub_gpuworkshop.core.people import Person
    from jupyterhub_gpuworkshop.core.people_csv import read_people

    if (count is None) == (csv_file is None):
        raise click.UsageError("Give either --count or --csv.")
    if csv_file is None:
        return [Person(line=line) for line in range(1, (count or 0) + 1)]
    try:
        data = csv_file.read_bytes()
    except OSError as error:
        raise RosterError(
            f"{csv_file}: cannot be read: {error.strerror}. Give another path."
        ) from None
    try:
        return list(read_people(data))
    except RosterError as error:
        raise RosterError(f"{csv_file}: {error}") from None


def _handout(
    *, address: str, cards: Path, merge: Path | None, title: str, paper: str
) -> "Handout":
    from jupyterhub_gpuworkshop.tools.roster.cards import Paper, check_address
    from jupyterhub_gpuworkshop.tools.roster.papers import Handout

    return Handout(
        address=check_address(address),
        cards=cards,
        merge=merge,
        title=title,
        paper=Paper(paper),
    )


def _tell(path: Path, done: "Done") -> None:
    count = len(done.names)
    click.echo(
        f"{path}: {len(done.roster.attendees)} attendees, {count} with a new code."
    )
    for file in done.written:
        click.echo(f"{file}: holds the codes. Print or send it, then delete it.")
