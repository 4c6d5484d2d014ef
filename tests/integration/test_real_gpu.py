"""The main job on a real NVIDIA GPU: caps, attribution, a reclaim."""

import importlib.util
import logging
import sys
from contextlib import suppress

import pytest
import requests

from jupyterhub_gpuworkshop.core.errors import SourceError
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.source import open_source
from tests.conftest import require_engine
from tests.hub.running_hub import wait_for

pytestmark = [pytest.mark.hub, pytest.mark.gpu]

_LOG = logging.getLogger(__name__)
_IDLE_SECONDS = 60
_SHARES = 8

_EARLY = f"""
c.Spawner.cmd = [{sys.executable!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.env_keep = ["PATH", "PYTHONPATH", "LD_LIBRARY_PATH"]
c.JupyterHub.load_roles[0]["scopes"].append("custom:gpuworkshop:admin")
"""


def _gpus():
    with suppress(SourceError):
        source = open_source("nvml")
        try:
            return source.inventory().devices
        finally:
            source.close()
    return ()


@pytest.fixture
def real_hub(make_hub):
    has_all = bool(_gpus()) and importlib.util.find_spec("torch") is not None
    require_engine(
        "gpu", has_all, "run on a machine with an NVIDIA GPU and PyTorch with CUDA"
    )
    pytest.importorskip("websocket")
    hub = make_hub(
        service=True,
        workshop={
            "gpus": {
                "source": "nvml",
                "simulated_dir": None,
                "attendees_per_gpu": _SHARES,
            },
            "idle": {
                "needed_after": f"{_IDLE_SECONDS}s",
                "after": f"{_IDLE_SECONDS}s",
            },
        },
        early=_EARLY,
    ).start()
    names = ["forgetful", "busy", "thinker", "jaxer", "torcher", "cupyer"]
    hub.add_users(*names)
    return hub


def _kernel(hub, name):
    from .direct_kernel import DirectKernel

    hub.spawn(name)
    url = hub.environment_of(name)["JUPYTERHUB_SERVICE_URL"]
    return DirectKernel(url.rstrip("/") + "/", hub.token)


def _snapshot(hub):
    answer = requests.get(
        f"http://127.0.0.1:{hub.service_port}/services/gpuworkshop/api/v1/snapshot",
        headers={"Authorization": f"token {hub.token}"},
        timeout=20,
    )
    assert answer.ok, answer.text
    return answer.json()


def _kernels(hub):
    return {kernel["user"]: kernel for kernel in _snapshot(hub)["kernels"]}


def test_a_forgotten_kernel_is_reclaimed_and_a_working_one_is_not(real_hub):
    hub = real_hub
    forgetful = _kernel(hub, "forgetful")
    forgetful.run("import torch; x = torch.ones(6 * 2**30, dtype=torch.uint8).cuda()")
    busy = _kernel(hub, "busy")
    busy.run("import torch; y = torch.ones(4096, 4096, device='cuda')")
    busy.send(
        "import time\n"
        "end = time.monotonic() + 300\n"
        "while time.monotonic() < end:\n"
        "    z = (y @ y).sum().item()\n"
    )
    kernels = wait_for(
        lambda: (k := _kernels(hub)) and len(k) == 2 and k,
        why=f"kernels are not seen: {_snapshot(hub)}",
    )
    wait_for(
        lambda: 6 * GIB < _kernels(hub)["forgetful"]["memory_bytes"] < 8 * GIB,
        why=f"the memory is not attributed: {_snapshot(hub)}",
    )
    assert {h["kind"] for h in _snapshot(hub)["holders"]} == {"kernel"}
    used_before = _snapshot(hub)["devices"][0]["memory_used_bytes"]
    pid = kernels["busy"]["pid"]
    forgetful.close()

    wait_for(
        lambda: _kernels(hub)["forgetful"]["memory_bytes"] == 0,
        seconds=_IDLE_SECONDS + 60,
        why=f"it is not reclaimed: {_snapshot(hub)}\n{hub.log[-3000:]}",
    )
    used_after = wait_for(
        lambda: (
            (used := _snapshot(hub)["devices"][0]["memory_used_bytes"])
            < used_before - 6 * GIB
            and used
        ),
        why="the driver does not see the memory free",
    )
    _LOG.info("used: %.2f GiB, then %.2f GiB", used_before / GIB, used_after / GIB)
    after = _kernels(hub)["busy"]
    assert after["pid"] == pid
    assert after["state"] == "busy"
    assert busy.state()["execution_state"] == "busy"
    events = requests.get(
        f"http://127.0.0.1:{hub.service_port}/services/gpuworkshop/api/v1/events",
        headers={"Authorization": f"token {hub.token}"},
        timeout=20,
    ).json()
    (reclaimed,) = [e for e in events if e["kind"] == "kernel_reclaimed"]
    _LOG.info("%s", reclaimed)
    assert reclaimed["user"] == "forgetful"
    assert reclaimed["details"]["freed_bytes"] > 6 * GIB


@pytest.mark.parametrize(
    ("name", "module", "allocate"),
    [
        (
            "jaxer",
            "jax",
            "import jax, jax.numpy as np\n"
            "kept = [jax.block_until_ready(np.ones({size}, np.uint8))]",
        ),
        (
            "torcher",
            "torch",
            "import torch\n"
            "kept = [torch.ones({size}, dtype=torch.uint8, device='cuda')]",
        ),
        ("cupyer", "cupy", "import cupy\nkept = [cupy.ones({size}, cupy.uint8)]"),
    ],
)
def test_a_framework_cannot_allocate_past_its_cap(real_hub, name, module, allocate):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"install {module} with CUDA")
    kernel = _kernel(real_hub, name)
    lease = next(lease for lease in real_hub.leases() if lease.user == name)
    share = lease.devices[0].memory_bytes
    fits = kernel.run(allocate.format(size=share // 2))
    assert "Error" not in fits, fits
    answer = kernel.run(allocate.format(size=share + 2**28).replace("[", "kept + ["))
    _LOG.info("%s, past its share: %s", module, answer[-300:])
    assert "memory" in answer.lower(), answer
    held = wait_for(lambda: _kernels(real_hub).get(name, {}).get("memory_bytes"))
    _LOG.info("%s holds %.2f of %.2f GiB", module, held / GIB, share / GIB)
    assert held <= share
