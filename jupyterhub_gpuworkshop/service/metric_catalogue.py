"""Which metrics there are, and what each says: for Prometheus and for the reference.

Owns names, labels and words. What is known of each is `metrics`' to say.
"""

from dataclasses import dataclass
from enum import Enum

DEVICE = ("device", "gpu", "model")
ATTENDEE = ("user", "server")
ATTENDEE_ON = (*ATTENDEE, "device", "gpu")


class MetricKind(str, Enum):
    """How a metric's value moves."""

    GAUGE = "gauge"
    COUNTER = "counter"
    """It only rises while the service lives; a restart of it begins at 0."""
    INFO = "info"
    """Always 1: its labels say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A metric and what it says.

    Attributes:
        name: as Prometheus stores it.
        kind: how its value moves.
        labels: the names of its labels.
        help: one or two sentences; when it is absent, too.
    """

    name: str
    kind: MetricKind = MetricKind.GAUGE
    labels: tuple[str, ...] = ()
    help: str

    @property
    def names_attendees(self) -> bool:
        """Whether a label of it is somebody's name."""
        return "user" in self.labels


def _gauge(name: str, labels: tuple[str, ...], help_: str) -> Described:
    return Described(name=f"gpuworkshop_{name}", labels=labels, help=help_)


def _counter(name: str, labels: tuple[str, ...], help_: str) -> Described:
    return Described(
        name=f"gpuworkshop_{name}",
        kind=MetricKind.COUNTER,
        labels=labels,
        help=f"{help_} Counted since this service started.",
    )


TOTALS = (
    Described(
        name="gpuworkshop_build_info",
        kind=MetricKind.INFO,
        labels=("version",),
        help="The version of jupyterhub-gpuworkshop that serves this.",
    ),
    _gauge(
        "snapshot_timestamp_seconds",
        (),
        "When the snapshot that all gauges here are taken from was made, in seconds "
        "since the epoch. It stands still while the service cannot look; absent before "
        "the first look.",
    ),
    _counter("snapshots_total", (), "How many snapshots were made."),
    _gauge(
        "driver_up",
        (),
        "Whether the last look could read at least one device (1), or none (0): the "
        "driver does not answer, is not there, or has no device. Absent before the "
        "first look.",
    ),
    _gauge(
        "hub_up",
        (),
        "Whether the hub reports (1) or has been silent for too long (0): what depends "
        "on it then is out of date or absent. Absent until the one or the other is "
        "known.",
    ),
    _gauge(
        "servers",
        (),
        "How many attendees' servers were asked for their kernels. Absent while the "
        "hub does not report.",
    ),
    _gauge(
        "servers_unknown",
        (),
        "How many servers did not answer as they should when they were asked for "
        "their kernels: nothing of theirs is reclaimed. Absent while the hub does not "
        "report.",
    ),
    _gauge(
        "problems",
        (),
        "How many things are not known just now; the organiser's page has each in a "
        "sentence.",
    ),
    _gauge(
        "history_on_disk",
        (),
        "Whether what happens is on disk (1), or in memory only (0).",
    ),
    _gauge(
        "needed",
        (),
        "Whether memory is needed (1): somebody was refused a share, or a device is "
        "short of memory for the leases on it. Absent before the first look.",
    ),
    _gauge(
        "waiting",
        (),
        "How many servers were refused a share in the last 15 minutes and have not "
        "been granted one since. Absent while the hub does not report.",
    ),
    _gauge(
        "device_up",
        DEVICE,
        "Whether the last look could read this device (1) or not (0); its readings are "
        "absent then.",
    ),
    _gauge(
        "device_lost",
        DEVICE,
        "Whether the driver has lost this device (1), as of when devices were listed "
        "last: it gets no new lease.",
    ),
    _gauge(
        "device_drained",
        DEVICE,
        "Whether an organiser has taken this device out of service (1): it gets no new "
        "lease.",
    ),
    _gauge("device_memory_total_bytes", DEVICE, "All memory of this device."),
    _gauge(
        "device_memory_used_bytes",
        DEVICE,
        "Memory of this device that processes use, without what the driver reserves.",
    ),
    _gauge(
        "device_memory_free_bytes",
        DEVICE,
        "Memory of this device that an allocation could get.",
    ),
    _gauge(
        "device_memory_promised_bytes",
        DEVICE,
        "What all leases on this device may use of it together, as the hub last "
        "reported them. Absent before its first report.",
    ),
    _gauge(
        "device_memory_parked_bytes",
        DEVICE,
        "GPU memory of paused kernels that is in host memory, and that they will ask "
        "for again on this device. Absent before the hub's first report.",
    ),
    _gauge(
        "device_memory_short_bytes",
        DEVICE,
        "What the leases on this device may still ask for and would not get now, added "
        "up over leases. Absent where the processes of the device are not known.",
    ),
    _gauge(
        "device_utilization_ratio",
        DEVICE,
        "How much of the time since the look before this device was at work, from 0 to "
        "1, as the driver tells it. MIG slices have none.",
    ),
    _gauge(
        "device_temperature_celsius", DEVICE, "Temperature, as the driver tells it."
    ),
    _gauge("device_power_watts", DEVICE, "Power drawn, as the driver tells it."),
    _gauge(
        "leases",
        (*DEVICE, "state"),
        "How many leases stand on this device, as the hub last reported them. A lease "
        "on several devices counts on each. Absent before its first report.",
    ),
    _gauge(
        "leases_without_device",
        ("state",),
        "How many leases have no device: shares of cpu. Absent before the hub's first "
        "report.",
    ),
    _gauge(
        "leases_over_share",
        DEVICE,
        "How many leases use more of this device than their share. Absent where the "
        "processes of the device are not known.",
    ),
    _gauge(
        "holders",
        (*DEVICE, "kind"),
        "How many processes hold memory of this device, by what part of a server they "
        "belong to: foreign ones are in no lease. Absent where they are not known.",
    ),
    _gauge(
        "holders_memory_bytes",
        (*DEVICE, "kind"),
        "Memory of this device that processes hold, by what part of a server they "
        "belong to. Absent where it is not known of each of them.",
    ),
    _gauge(
        "kernels",
        ("state",),
        "How many kernels there are, by what their server says they do; unknown where "
        "it does not answer. Absent while the hub does not report.",
    ),
    _gauge(
        "kernels_parked",
        (),
        "How many kernels are paused, variables kept. Absent while the hub does not "
        "report.",
    ),
    _gauge(
        "kernels_pinned",
        (),
        "How many kernels are kept from being reclaimed for idleness. Absent while the "
        "hub does not report.",
    ),
    _counter(
        "events_total",
        ("kind",),
        "How many events the history took in, by kind.",
    ),
    _counter(
        "reclaimed_bytes_total",
        ("action",),
        "GPU memory that kernels held no more after it was taken from them, by what "
        "was done to them.",
    ),
)
"""What everybody who may look sees."""

BY_ATTENDEE = (
    _gauge(
        "attendee_memory_used_bytes",
        ATTENDEE_ON,
        "What the processes of this server use of the device. Absent where the "
        "processes of the device are not known.",
    ),
    _gauge(
        "attendee_memory_share_bytes",
        ATTENDEE_ON,
        "What this server may use of the device.",
    ),
    _gauge(
        "attendee_memory_over_bytes",
        ATTENDEE_ON,
        "What this server uses of the device above its share; 0 where it keeps to it. "
        "Absent where the processes of the device are not known.",
    ),
    _gauge(
        "attendee_memory_short_bytes",
        ATTENDEE_ON,
        "What this server may still ask for on the device and would not get now. "
        "Absent where the processes of the device are not known.",
    ),
    _gauge(
        "attendee_memory_parked_bytes",
        ATTENDEE_ON,
        "What this server's paused kernels will ask for again on the device.",
    ),
    _gauge(
        "attendee_kernels",
        (*ATTENDEE, "state"),
        "How many kernels this server has, by what it says they do. Absent while the "
        "hub does not report.",
    ),
)
"""For organisers alone, where `metrics.by_attendee` of the workshop file says so."""
