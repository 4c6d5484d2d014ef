"""A unit's properties: the admin's, with the rules of a lease laid over them.

Owns how the two are merged. Values in, values out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ALLOW, _POLICY, _PRIVATE = "DeviceAllow", "DevicePolicy", "PrivateDevices"

STAYS_OPEN = ("/dev/char/10:229 rw",)
"""Beside what `DevicePolicy=closed` leaves open: /dev/fuse, which Linux opens to all,
and Apptainer, rclone and sshfs mount with. Shared memory is no device."""

_NO = frozenset({"", "no", "false", "off", "0"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledProperties:
    """What a unit is started with.

    Attributes:
        properties: as SystemdSpawner takes them.
        private_devices: whether the unit may have a /dev of its own.
        overruled: sentences for the log: what of the admin's gives way, and why.
    """

    properties: dict[str, str | list[str]]
    private_devices: bool
    overruled: tuple[str, ...] = ()


def rule_devices(
    admin: Mapping[str, Any],
    rules: Sequence[str],
    *,
    private_devices: bool,
    opens_gpus: Callable[[str], bool],
) -> RuledProperties:
    """Lay a lease's device rules over the admin's properties.

    `DevicePolicy=closed` opens what any program takes for granted (null, zero, full,
    random, urandom, tty, ptmx and the terminals of pts) and what is listed; `strict`
    would not even open those, and `auto` opens everything where nothing is listed.

    Args:
        admin: `unit_extra_properties` as configured; it is left as it is.
        rules: of the lease, as `device_rules` returns them; none closes every GPU.
        private_devices: `isolate_devices` as configured.
        opens_gpus: whether a line of the admin's opens a GPU.
    """
    properties = {name: _copy(value) for name, value in admin.items()}
    overruled = []
    asked = _lines(properties.pop(_ALLOW, ()))
    kept = [line for line in asked if not opens_gpus(line)]
    if dropped := [line for line in asked if line not in kept]:
        overruled.append(
            f"{_ALLOW}={', '.join(dropped)} of unit_extra_properties is left out: "
            "which GPUs a server may open is its lease's to say."
        )
    policy = str(properties.get(_POLICY, "closed"))
    if policy not in ("closed", "strict"):
        overruled.append(
            f"{_POLICY}={policy} of unit_extra_properties is closed instead: it would "
            "open every GPU."
        )
        policy = "closed"
    own = properties.pop(_PRIVATE, "no")
    private = private_devices or str(own).lower() not in _NO
    if private and rules:
        overruled.append(
            "isolate_devices (PrivateDevices=yes) is off for this server: a /dev of "
            "its own would hide its GPU. The rules for its devices take its place."
        )
    properties[_POLICY] = policy
    ours = (*(STAYS_OPEN if policy == "closed" else ()), *rules)
    # An empty line would drop those before it, so the admin's come first.
    properties[_ALLOW] = list(dict.fromkeys((*kept, *ours)))
    return RuledProperties(
        properties=properties,
        private_devices=private and not rules,
        overruled=tuple(overruled),
    )


def _lines(value: object) -> list[str]:
    """Return a property's lines: systemd takes one, or several one after another."""
    if isinstance(value, str):
        return [value]
    return [str(line) for line in value] if isinstance(value, Sequence) else []


def _copy(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
