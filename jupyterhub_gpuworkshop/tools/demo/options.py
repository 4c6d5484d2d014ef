"""What the demo is asked to do. Values only: the command line makes them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The demo's options, checked by the command line.

    Attributes:
        gpus: how many simulated devices.
        gpu_memory_bytes: of each.
        attendees: how many robots; with 0 the room is the visitor's alone.
        attendees_per_gpu: into how many equal shares each device is cut.
        idle_timeout_seconds: sets both idle times of the workshop file.
        port: on 127.0.0.1, for the proxy in front of the hub.
        json: print one JSON object a line instead of a table.
        seed: the same seed gives the robots the same plans; None for chance.
    """

    gpus: int
    gpu_memory_bytes: int
    attendees: int
    attendees_per_gpu: int
    idle_timeout_seconds: float
    port: int
    json: bool = False
    seed: int | None = None
