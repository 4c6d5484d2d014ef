"""The demo's hub: which proxy, and in what environment."""

import os
from pathlib import Path

from jupyterhub_gpuworkshop.tools.demo.hub_process import (
    PYTHON_PROXY,
    HubProcess,
    environment,
    find_proxy,
)

from .examples import make_settings


def put_program(folder: Path, name: str, first_line: str) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(first_line + "\n")
    path.chmod(0o755)
    return os.fspath(folder)


def test_nodes_proxy_is_taken_where_it_is_on_the_path(tmp_path: Path) -> None:
    name = "configurable-http-proxy"
    venv = put_program(tmp_path / "venv", name, "#!/somewhere/bin/python3")
    node = put_program(tmp_path / "node", name, "#!/usr/bin/env node")
    put_program(tmp_path / "node", "node", "#!/bin/sh")

    assert find_proxy(f"{venv}{os.pathsep}{node}") == (f"{node}/{name}",)


def test_the_pip_installable_proxy_is_not_taken_for_nodes(tmp_path: Path) -> None:
    venv = put_program(
        tmp_path / "venv", "configurable-http-proxy", "#!/somewhere/bin/python3"
    )
    put_program(tmp_path / "venv", "node", "#!/bin/sh")

    assert find_proxy(venv) == PYTHON_PROXY


def test_nodes_proxy_without_node_is_of_no_use(tmp_path: Path) -> None:
    node = put_program(
        tmp_path / "node", "configurable-http-proxy", "#!/usr/bin/env node"
    )

    assert find_proxy(node) == PYTHON_PROXY


def test_an_empty_path_is_no_reason_to_fail() -> None:
    assert find_proxy("") == PYTHON_PROXY


def test_nothing_of_an_outer_hub_or_of_make_is_passed_on(tmp_path: Path) -> None:
    inherited = {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "JUPYTERHUB_API_TOKEN": "secret",
        "JUPYTER_CONFIG_DIR": "/etc/somewhere",
        "CONFIGPROXY_AUTH_TOKEN": "secret",
        "MAKEFLAGS": "-j",
        "CUDA_VISIBLE_DEVICES": "0",
        "GPUWORKSHOP_SIMULATED_GPUS": "/elsewhere",
        "XDG_DATA_HOME": "/home/somebody",
        "HOME": "/home/somebody",
        "TMPDIR": "/somewhere",
    }
    env = environment(inherited, make_settings(tmp_path))

    assert env["PATH"] == "/bin"
    assert env["LANG"] == "C.UTF-8"
    assert env["HOME"] == f"{tmp_path}/hub"
    assert env["TMPDIR"] == os.fspath(tmp_path / "tmp")
    assert env["LOGNAME"]
    assert not {name for name in inherited if name not in env} - {
        "JUPYTERHUB_API_TOKEN",
        "JUPYTER_CONFIG_DIR",
        "CONFIGPROXY_AUTH_TOKEN",
        "MAKEFLAGS",
        "CUDA_VISIBLE_DEVICES",
        "GPUWORKSHOP_SIMULATED_GPUS",
        "XDG_DATA_HOME",
    }
    assert "secret" not in env.values()


def test_a_hub_that_was_not_started_has_neither_pid_nor_log(tmp_path: Path) -> None:
    hub = HubProcess(make_settings(tmp_path))
    hub.stop()

    assert (hub.pid, hub.ended, hub.tail()) == (0, False, "")
