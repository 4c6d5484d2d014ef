"""Rooms of any size, as the feed tells of them."""

import time

GIB = 1024**3
STATES = ("busy", "idle", "idle", "unknown")


def device(number, **more):
    """Return a device without readings."""
    return {
        "uuid": f"GPU-{number}",
        "label": str(number),
        "name": "NVIDIA H100 80GB HBM3",
        "memory_total_bytes": 80 * GIB,
        "leases": 4,
        "promised_bytes": 64 * GIB,
        "lost": False,
        "drained": False,
        "problem": "",
        **more,
    }


def lease(user, number=0, *, part_gib=16, used_gib=8.0, **more):
    """Return an attendee's lease on one device."""
    over_bytes = max(0, int((used_gib - part_gib) * GIB))
    return {
        "id": f"lease-{user}",
        "user": user,
        "server": "",
        "share": "1/5",
        "state": "active",
        "devices": [
            {
                "uuid": f"GPU-{number}",
                "label": str(number),
                "memory_bytes": part_gib * GIB,
                "memory_used_bytes": int(used_gib * GIB),
                "over_bytes": over_bytes,
            }
        ],
        "granted_at": time.time() - 3600,
        "reason": "",
        "memory_used_bytes": int(used_gib * GIB),
        "peak_memory_bytes": int(used_gib * GIB),
        "over_bytes": over_bytes,
        "short_bytes": 0,
        "parked_bytes": 0,
        "server_verdict": "",
        "memory_limit": "soft",
        "memory_limits": [
            {
                "applies_to": "PyTorch",
                "kind": "soft",
                "limit_bytes": part_gib * GIB,
                "enforced_by": "PyTorch's own setting",
            }
        ],
        "no_hard_limit": "",
        **more,
    }


def kernel(user, number=0, *, used_gib=4.0, state="idle", idle_seconds=None, **more):
    """Return one of an attendee's kernels."""
    now = time.time()
    return {
        "lease_id": f"lease-{user}",
        "user": user,
        "server": "",
        "kernel_id": f"kernel-{user}-{number}",
        "notebook": f"notebook-{number}.ipynb",
        "pid": 1000 + number,
        "state": state,
        "connections": 1,
        "memory_bytes": int(used_gib * GIB),
        "peak_memory_bytes": int(used_gib * GIB),
        "verdict": "It is used." if state == "busy" else "Idle (limit 20 min).",
        "last_activity": None,
        "gpu_utilisation": 0.5 if state == "busy" else 0.0,
        "cpu": 0.01,
        "acts_at": None,
        "pinned": False,
        "pinned_until": None,
        "pinned_by": "",
        "parked_bytes": 0,
        "parked_at": None,
        "idle_since": None if idle_seconds is None else now - idle_seconds,
        "started_at": now - 3600,
        "why_not_pause": "",
        **more,
    }


def holder(user, pid, *, number=0, used_gib=4.0, kind="kernel", kernel_id="", **more):
    """Return what a process holds of a device."""
    return {
        "pid": pid,
        "started": 5,
        "device": f"GPU-{number}",
        "memory_bytes": int(used_gib * GIB),
        "utilisation": None,
        "kind": kind,
        "command": "python train.py",
        "lease_id": f"lease-{user}" if user else "",
        "user": user,
        "server": "",
        "kernel_id": kernel_id,
        **more,
    }


def event(number, kind="lease_granted", **more):
    """Return an event."""
    return {
        "id": number,
        "at": time.time() - 60,
        "kind": kind,
        "user": "ada",
        "server": "",
        "devices": ["GPU-0"],
        "reason": "It was asked for.",
        "details": {},
        **more,
    }


def messages(*, devices=(), room=None, tick=None, view="organiser"):
    """Return what a new viewer gets first."""
    now = time.time()
    readings = [[40 * GIB, 0.47, 61, 312.0]] * len(devices)
    return [
        {"type": "hello", "now": now, "view": view, "name": "olga", "tick_seconds": 1},
        {"type": "devices", "version": 1, "devices": list(devices), "why_none": ""},
        {
            "type": "tick",
            "version": 1,
            "at": now,
            "looked_at": now,
            "needed": False,
            "devices": readings if tick is None else tick,
        },
        *([] if room is None else [room]),
    ]


def whole(
    leases=(), kernels=(), holders=(), events=(), *, version=1, base=None, **more
):
    """Return a room's message."""
    return {
        "type": "room",
        "version": version,
        "base": base,
        "leases": {x["id"]: x for x in leases},
        "kernels": {f"{x['user']}/{x['server']}/{x['kernel_id']}": x for x in kernels},
        "holders": {f"{x['pid']}-{x['started']}/{x['device']}": x for x in holders},
        "notices": {},
        "events": list(events),
        **(
            {"problems": [], "waiting": [], "locked": [], "announcement": None}
            if base is None
            else {}
        ),
        **more,
    }


def crowd(attendees, devices=8, kernels=3):
    """Return leases, kernels and holders of so many attendees."""
    found = ([], [], [])
    for number in range(attendees):
        user, on = f"attendee-{number:03}", number % devices
        found[0].append(lease(user, on, part_gib=2, used_gib=number % 5 * 0.6))
        for one in range(kernels):
            state = STATES[(number + one) % len(STATES)]
            idle_seconds = 60 * (number + one) if state == "idle" else None
            made = kernel(
                user, one, used_gib=0.4, state=state, idle_seconds=idle_seconds
            )
            found[1].append(made)
            found[2].append(
                holder(
                    user,
                    number * 10 + one,
                    number=on,
                    used_gib=0.4,
                    kernel_id=made["kernel_id"],
                )
            )
    return found
