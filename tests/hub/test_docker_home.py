"""What counts as home in a container: what is brought there must outlive it."""

from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.hub.homes import Home, Mount
from jupyterhub_gpuworkshop.hub.spawners.docker_engine import _apart
from jupyterhub_gpuworkshop.hub.spawners.docker_home import (
    home_of,
    home_path,
    with_material,
)


@pytest.mark.parametrize(
    ("root", "targets", "expected"),
    [
        ("/home/jovyan", [], "/home/jovyan"),
        ("/home/jovyan", ["/home/jovyan"], "/home/jovyan"),
        ("/home/jovyan", ["/home"], "/home/jovyan"),
        ("/home/jovyan", ["/home/jovyan/work"], "/home/jovyan/work"),
        ("/home/jovyan/work", ["/home/jovyan/work"], "/home/jovyan/work"),
        ("/home/jovyan", ["/home/jovyan-too", "/srv"], "/home/jovyan"),
        ("/home/jovyan", ["/home/jovyan/b", "/home/jovyan/a"], "/home/jovyan/a"),
        ("", [], "/"),
    ],
)
def test_the_home_outlives_the_container_where_anything_does(root, targets, expected):
    assert home_path(root, targets) == expected


def test_what_the_engine_says_of_a_container_is_how_its_home_is_reached():
    def volume(name: str, target: str, **more: object) -> dict[str, object]:
        facts = {"Type": "volume", "Name": name, "Source": f"/var/lib/docker/{name}"}
        return {**facts, "Destination": target, "RW": True, **more}

    container = {
        "Config": {"Image": "lab", "User": "1000", "WorkingDir": "/home/jovyan"},
        "Mounts": [
            volume("jupyter-ann", "/home/jovyan/work"),
            volume("0" * 64, "/home/jovyan/cache"),
            volume("gpuworkshop-hook-1", "/opt/gpuworkshop/startup"),
            volume("shared", "/home/jovyan/shared", RW=False),
            {"Type": "tmpfs", "Destination": "/home/jovyan/tmp", "RW": True},
            {"Type": "bind", "Source": "/srv/x", "Destination": "/x", "RW": True},
        ],
    }
    work = Mount(kind="volume", source="jupyter-ann", target="/home/jovyan/work")
    other = Mount(kind="bind", source="/srv/x", target="/x")
    assert home_of(container, "") == Home(
        kind="docker",
        path="/home/jovyan/work",
        image="lab",
        user="1000",
        mounts=(work, other),
    )
    assert home_of(container, "~/nb").path == "/home/jovyan/work"
    assert home_of(container, "/x/deep").path == "/x/deep"
    assert home_of({}, "").path == "/"


def test_material_is_mounted_to_be_read_beside_what_the_admin_mounts():
    given = {"host_config": {"Mounts": [{"Target": "/admin"}]}, "image": "lab"}
    folder = Path("/srv/material")
    asked = with_material(given, folder, "")
    assert asked["image"] == "lab"
    assert asked["host_config"]["Mounts"] == [
        {"Target": "/admin"},
        {
            "Type": "bind",
            "Source": "/srv/material",
            "Target": "/srv/material",
            "ReadOnly": True,
        },
    ]
    (mount,) = with_material({}, folder, "kept")["host_config"]["Mounts"]
    assert (mount["Type"], mount["Source"]) == ("volume", "kept")
    assert mount["ReadOnly"]
    assert mount["Target"] == "/srv/material"
    assert given["host_config"]["Mounts"] == [{"Target": "/admin"}]


def test_the_engines_stream_is_taken_apart_wherever_it_is_cut_off():
    def frame(stream: int, text: bytes) -> bytes:
        return bytes((stream, 0, 0, 0)) + len(text).to_bytes(4, "big") + text

    said = frame(1, b"on") + frame(2, b"oops") + frame(1, b"e")
    assert _apart(said) == (b"one", b"oops")
    assert _apart(said[:-1]) == (b"on", b"oops")
    assert _apart(b"\1\0\0\0\xff\xff\xff\xffshort") == (b"short", b"")
    assert _apart(b"") == (b"", b"")
