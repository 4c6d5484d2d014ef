"""The sections of the workshop file: their keys, defaults and limits.

Owns what each key may be and the words that the reference prints for it. What the
whole file says together is `workshop`'s.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from jupyterhub_gpuworkshop.core.placement import Policy
from jupyterhub_gpuworkshop.core.sums import MOST_PARTS
from jupyterhub_gpuworkshop.core.units import MIB, format_size
from jupyterhub_gpuworkshop.workshop_reading import (
    DURATION_WORDS,
    PATH_WORDS,
    SIZE_WORDS,
    DeviceName,
    Duration,
    FilePath,
    HttpUrl,
    Number,
    ServiceName,
    ShareText,
    Size,
    Whole,
    YesNo,
    at_least_1mib,
    lasting,
)

ATTENDEES_PER_GPU = 5
"""Where the workshop file says nothing about it."""

ON_HUB = "Takes effect when the hub restarts; servers that run keep their leases."
_ON_SERVICE = "Takes effect when the service restarts (with the hub, if managed)."
ON_BOTH = "Takes effect when hub and service restart."
SOON = "Takes effect soon after the file is saved, without a restart."
_ON_RELOAD = "Takes effect when the hub restarts, for servers that start from then on."


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _all_commented_out(cls, value: object) -> object:
        """Read a section, or a file, without a key as one of defaults."""
        return {} if value is None else value


class Gpus(Section):
    """How the devices are shared."""

    attendees_per_gpu: Annotated[Whole, Field(ge=1, le=MOST_PARTS)] | None = Field(
        default=None,
        description="How many attendees share one GPU: each gets one of so many equal "
        f"parts. 1 to {MOST_PARTS}. Default: derived from `attendees`; "
        f"{ATTENDEES_PER_GPU} without it. Not together with `gpus.memory_per_attendee` "
        f"or `shares.default`. {ON_HUB}",
    )
    memory_per_attendee: Annotated[Size, AfterValidator(at_least_1mib)] | None = Field(
        default=None,
        description="GPU memory for each attendee, CUDA context included. "
        f"{SIZE_WORDS} At least 1MiB. Default: an equal part of a GPU instead. Not "
        f"together with `gpus.attendees_per_gpu` or `shares.default`. {ON_HUB}",
    )
    keep_free_per_gpu: Size = Field(
        default=512 * MIB,
        description="Memory of each GPU that no share is cut from, for the driver and "
        f"processes outside the hub. {SIZE_WORDS} 0 or more; what the driver reserves "
        f"counts towards it. Default: 512MiB. {ON_HUB}",
    )
    exclude: tuple[DeviceName, ...] = Field(
        default=(),
        description="GPUs that no attendee gets: a list of UUIDs, beginnings of UUIDs "
        "(5 characters or more), or indices as nvidia-smi counts them. UUIDs are "
        "safer: an index may change with a reboot. A GPU's MIG slices go with it. "
        f"Default: none. {ON_HUB}",
    )
    oversubscribe: Annotated[Number, Field(ge=1.0, le=10.0)] = Field(
        default=1.0,
        description="How often each GPU's memory is promised. 1.0 to 10.0, no unit. "
        "Default: 1.0, nothing is promised twice. Above it, attendees can meet "
        f"out-of-memory errors within their share. {ON_HUB}",
    )
    placement: Policy = Field(
        default=Policy.ROUND_ROBIN,
        description="Which of the GPUs with room is given. `round-robin`: of those "
        "with the fewest leases, the next after the last given. `least-used`: the one "
        "with the most memory free as observed. `pack`: one is filled before the "
        f"next. Default: round-robin. {ON_HUB}",
    )
    sticky: YesNo = Field(
        default=False,
        description="Whether who comes back gets the same GPU again, if it has room. "
        f"true or false. Default: false. {ON_HUB}",
    )
    when_full: Literal["refuse", "cpu"] = Field(
        default="refuse",
        description="What happens when no GPU has room. `refuse`: the server does not "
        "start and the hub's page says why. `cpu`: it starts without a GPU and says "
        f"so. Default: refuse. {ON_HUB}",
    )
    source: Literal["nvml", "simulated"] = Field(
        default="nvml",
        description="Where GPUs are looked for. `nvml`: NVIDIA's driver. `simulated`: "
        f"simulated GPUs, for a demo or a rehearsal. Default: nvml. {ON_BOTH}",
    )
    simulated_dir: FilePath | None = Field(
        default=None,
        validate_default=True,
        description="The folder that holds the simulated GPUs. Required with "
        "`gpus.source: simulated`, and for nothing else. "
        f"{PATH_WORDS} Default: none. {ON_BOTH}",
    )

    @field_validator("memory_per_attendee")
    @classmethod
    def _one_way_to_share(cls, value: int | None, info: ValidationInfo) -> int | None:
        beside = info.data.get("attendees_per_gpu")
        if value is not None and beside is not None:
            raise ValueError(
                f"{format_size(value)} was given beside gpus.attendees_per_gpu: "
                f"{beside}, and each sets the share. Take one of the two out."
            )
        return value

    @field_validator("simulated_dir")
    @classmethod
    def _simulated_needs_it(
        cls, value: Path | None, info: ValidationInfo
    ) -> Path | None:
        if value is None and info.data.get("source") == "simulated":
            raise ValueError(
                "nothing is given, but gpus.source is simulated. Write the folder of "
                "the simulated GPUs, or gpus.source: nvml."
            )
        return value


class Shares(Section):
    """Who is entitled to what: a user's share, else a group's, else the default."""

    default: ShareText | None = Field(
        default=None,
        description="The share of everyone whom neither `shares.users` nor "
        "`shares.groups` names: a part of a GPU (1/5), an amount of its memory (8GiB), "
        "whole GPUs (1 gpu, 2 gpus), or cpu for none. Default: follows from `gpus` and "
        "`attendees`. Not together with `gpus.attendees_per_gpu` or "
        f"`gpus.memory_per_attendee`. {ON_HUB}",
    )
    groups: dict[str, ShareText] = Field(
        default={},
        description="Shares by group of the hub, one line `group: share` each. Who is "
        "in several gets the share of the one that stands first in the file. Default: "
        f"none. {ON_HUB}",
    )
    users: dict[str, ShareText] = Field(
        default={},
        description="Shares by user name, one line `name: share` each; they go before "
        f"those of groups. Default: none. {ON_HUB}",
    )


class Monitor(Section):
    """How often the service looks."""

    interval: Annotated[Duration, AfterValidator(lasting(0.5, 10))] = Field(
        default=5.0,
        description="Time between two looks at GPUs, processes and kernels. "
        f"{DURATION_WORDS} 0.5s to 10s: the driver remembers no more of what each "
        f"process does. Default: 5 s. {_ON_SERVICE}",
    )
    timeout: Annotated[Duration, AfterValidator(lasting(0.1))] = Field(
        default=5.0,
        description="How long one call of an attendee's server may take before the "
        f"server counts as unknown. {DURATION_WORDS} 0.1s to 366 d. Default: 5 s. "
        f"{_ON_SERVICE}",
    )


class ServiceSettings(Section):
    """The process beside the hub."""

    name: ServiceName = Field(
        default="gpuworkshop",
        description="The service's name at the hub, part of its URL: small letters, "
        f"digits, - and _. Default: gpuworkshop. {ON_BOTH}",
    )
    port: Annotated[Whole, Field(ge=1, le=65535)] = Field(
        default=10110,
        description="The port on 127.0.0.1 at which the service listens. 1 to 65535. "
        f"Default: 10110. {ON_BOTH}",
    )
    managed: YesNo = Field(
        default=True,
        description="Whether the hub starts and ends the service. false: something "
        f"else does, a systemd unit say. true or false. Default: true. {ON_BOTH}",
    )
    url: HttpUrl | None = Field(
        default=None,
        description="Where the hub finds a service that it does not start: "
        "http://host:port. Only with `service.managed: false`. Default: 127.0.0.1 at "
        f"`service.port`. {ON_HUB}",
    )
    secret_file: FilePath | None = Field(
        default=None,
        description="The file with the secret that hub and service share; readable by "
        f"these two alone; the hub makes it. {PATH_WORDS} Default: none, since a "
        "managed service is handed a new secret at each start; needed where "
        f"`service.managed` is false. {ON_BOTH}",
    )
    state_dir: FilePath | None = Field(
        default=None,
        description=f"The folder for the service's history. {PATH_WORDS} "
        f"Default: the directory in which the service starts. {_ON_SERVICE}",
    )

    @field_validator("url")
    @classmethod
    def _only_of_an_external_one(
        cls, value: str | None, info: ValidationInfo
    ) -> str | None:
        if value is not None and info.data.get("managed") is True:
            raise ValueError(
                f"{value} is for a service that the hub does not start, but "
                "service.managed is true. Write service.managed: false, or take "
                "service.url out."
            )
        return value


class HistorySettings(Section):
    """What the service remembers."""

    keep_days: Annotated[Whole, Field(ge=1, le=366)] = Field(
        default=14,
        description="How many days the service's history keeps: what happened, the "
        "most memory that leases and kernels held, and the usage of the GPUs by the "
        "quarter of an hour. What is older is deleted, within a minute. 1 to 366. "
        f"Default: 14. {_ON_SERVICE}",
    )


class Metrics(Section):
    """What the service tells Prometheus."""

    by_attendee: YesNo = Field(
        default=False,
        description="Whether `metrics` of the service has attendees by name, too: what "
        "each server uses of its share. Only tokens of organisers read it. Whoever "
        "reads Prometheus or Grafana then reads names, for as long as Prometheus "
        f"keeps them. true or false. Default: false, totals alone. {SOON}",
    )


class Kernels(Section):
    """What JupyterLab does with kernels; for hubs on The Littlest JupyterHub alone."""

    stop_on_close: YesNo = Field(
        default=False,
        description="Whether JupyterLab shuts a kernel down when its notebook's last "
        "tab is closed. Only the TLJH plugin heeds it, for the environment in which "
        "all attendees' servers run. true or false. Default: false, JupyterLab's own. "
        f"{_ON_RELOAD}",
    )


class Dashboard(Section):
    """What attendees see of the GPUs beside the service's own pages."""

    nvdashboard: YesNo = Field(
        default=False,
        description="Whether attendees get jupyterlab-nvdashboard as well, which "
        "charts whole GPUs in JupyterLab 4. It knows no attendee, no share and no MIG "
        "slice, and shows nothing to a server that may open some of a machine's GPUs "
        "and not all. Only the TLJH plugin heeds it. true or false. Default: false; it "
        "is then not installed, and not removed either. Takes effect when the plugin "
        "is installed or upgraded, and with `sudo gpuworkshop tljh packages`.",
    )
