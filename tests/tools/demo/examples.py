"""A run's settings and a service's answers, as the demo's tests need them."""

from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.tools.demo.options import DemoOptions
from jupyterhub_gpuworkshop.tools.demo.settings import DemoSettings

GPU_0 = "GPU-00000000-0000-0000-0000-000000000000"
GPU_1 = "GPU-11111111-1111-1111-1111-111111111111"


def make_options(**given: Any) -> DemoOptions:
    return DemoOptions(
        **{
            "gpus": 4,
            "gpu_memory_bytes": 16 * GIB,
            "attendees": 8,
            "attendees_per_gpu": 5,
            "idle_timeout_seconds": 60.0,
            "port": 0,
            **given,
        }
    )


def make_settings(directory: Path, **given: Any) -> DemoSettings:
    return DemoSettings(
        **{
            "directory": directory,
            "demo_pid": 1,
            "port": 8000,
            "hub_port": 8001,
            "proxy_api_port": 8002,
            "service_port": 8003,
            "proxy_command": ["proxy"],
            "organiser_password": "of-the-organiser",
            "attendee_password": "of-the-attendees",
            "api_token": "the-token",
            "workshop": {},
            **given,
        }
    )


def device(uuid: str, label: str, **given: Any) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "label": label,
        "memory_total_bytes": 16 * GIB,
        "memory_used_bytes": 4 * GIB,
        "utilisation": 0.42,
        "leases": 2,
        "problem": "",
        **given,
    }


def kernel(user: str, **given: Any) -> dict[str, Any]:
    return {
        "lease_id": f"lease-of-{user}",
        "user": user,
        "server": "",
        "kernel_id": "0123456789abcdef",
        "notebook": "analysis.ipynb",
        "state": "idle",
        "memory_bytes": 2 * GIB,
        "peak_memory_bytes": 3 * GIB,
        "idle_seconds": 12.0,
        "verdict": "Idle for 12 s of 60 s, holding 2 GiB.",
        **given,
    }


def lease(user: str, label: str = "0") -> dict[str, Any]:
    return {"id": f"lease-of-{user}", "user": user, "devices": [{"label": label}]}


def event(**given: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "at": 1_800_000_000.25,
        "kind": "lease_granted",
        "user": "attendee01",
        "server": "",
        "devices": [GPU_0],
        "reason": "round-robin: GPU 0 had the fewest leases (0)",
        "details": {"share": "1/5"},
        **given,
    }
