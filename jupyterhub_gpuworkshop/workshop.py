"""The workshop file: one YAML file in which the organiser describes the workshop.

Owns the file as a whole, and which share an attendee is entitled to. The keys of each
section are in `workshop_sections`.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.core.roster import share_of
from jupyterhub_gpuworkshop.core.shares import Share, ShareKind
from jupyterhub_gpuworkshop.core.sums import parts_for
from jupyterhub_gpuworkshop.workshop_errors import mistakes, shown
from jupyterhub_gpuworkshop.workshop_event import (
    ROSTER_NAME,
    DoorsSettings,
    Material,
    RosterSettings,
)
from jupyterhub_gpuworkshop.workshop_reading import (
    DatabaseUrl,
    PackageName,
    Whole,
    read_file,
    read_section,
    split_source,
)
from jupyterhub_gpuworkshop.workshop_reclaim import Idle, OverShare, Parking
from jupyterhub_gpuworkshop.workshop_sections import (
    ATTENDEES_PER_GPU,
    ON_HUB,
    Dashboard,
    Gpus,
    HistorySettings,
    Kernels,
    Metrics,
    Monitor,
    Section,
    ServiceSettings,
    Shares,
)


class Workshop(Section):
    """Everything the organiser decides. Every key has a default."""

    attendees: Annotated[Whole, Field(ge=1, le=100_000)] | None = Field(
        default=None,
        description="How many attendees are expected. Sets how many share a GPU where "
        "`gpus` and `shares.default` do not say; `gpuworkshop check` compares with it "
        f"in any case. 1 to 100000. Default: not known. {ON_HUB}",
    )
    gpus: Gpus = Gpus()
    shares: Shares = Shares()
    idle: Idle = Idle()
    over_share: OverShare = OverShare()
    parking: Parking = Parking()
    monitor: Monitor = Monitor()
    service: ServiceSettings = ServiceSettings()
    history: HistorySettings = HistorySettings()
    metrics: Metrics = Metrics()
    kernels: Kernels = Kernels()
    dashboard: Dashboard = Dashboard()
    roster: RosterSettings = RosterSettings()
    doors: DoorsSettings = DoorsSettings()
    material: Material = Material()
    packages: tuple[PackageName, ...] = Field(
        default=(),
        description="GPU software for attendees, installed with pip: `cupy`, `torch`, "
        "`torchvision`, `torchaudio`, `jax`, `tensorflow`, `numba-cuda`, `cudf`, "
        "`cuml` and `rapids` (cudf and cuml) are chosen to the CUDA version of the "
        "driver; every other name, with or without a version, goes to pip as it is. "
        "Only the TLJH plugin heeds it. Default: none. Takes effect when the plugin "
        "is installed or upgraded, and with `sudo gpuworkshop tljh packages`.",
    )
    ledger_url: DatabaseUrl | None = Field(
        default=None,
        repr=False,  # it may hold a password
        description="The database of the ledger, as SQLAlchemy writes it: "
        "postgresql+psycopg://user:password@host/name, say. Default: an SQLite file "
        f"beside the hub's database. {ON_HUB}",
    )

    @field_validator("shares")
    @classmethod
    def _one_way_to_share(cls, value: Shares, info: ValidationInfo) -> Shares:
        gpus = info.data.get("gpus")
        if value.default is None or gpus is None:
            return value
        for key in ("attendees_per_gpu", "memory_per_attendee"):
            if getattr(gpus, key) is not None:
                raise ValueError(
                    f"shares.default: {value.default} was given beside gpus.{key}, and "
                    "each sets the share. Take one of the two out."
                )
        return value

    @classmethod
    def load(cls, source: "str | Path | Mapping[str, object] | Workshop") -> "Workshop":
        """Read a workshop from a file, or from its keys as a mapping.

        Args:
            source: the path of a YAML file, with ``#section`` behind it where the
                workshop is but one section of it, as in TLJH's config.yaml; or what
                one holds; or a workshop, which is returned as it is.

        Raises:
            WorkshopFileError: with every mistake that was found, one a line.
        """
        if isinstance(source, Workshop):
            return source
        name, section, folder = "workshop", "", Path.cwd()
        values: object = source
        if isinstance(source, (str, Path)):
            path, section = split_source(source)
            name, folder = str(path), path.absolute().parent
            values = read_section(path, section) if section else read_file(path)
        if not isinstance(values, (Mapping, type(None))):
            raise WorkshopFileError(
                f"{name}: {f'{section}: ' if section else ''}{shown(values)} is no "
                "workshop. Write lines of `key: value`, with these keys: "
                f"{', '.join(cls.model_fields)}."
            )
        try:
            return cls.model_validate(dict(values or {}), context={"folder": folder})
        except ValidationError as error:
            raise WorkshopFileError(mistakes(error, name, cls, section)) from None

    def roster_file(self, source: "str | Path | Mapping[str, object]") -> Path:
        """Return where the roster is.

        Args:
            source: what this workshop was loaded from. A mapping has no folder: the
                current one stands for it.
        """
        if self.roster.file is not None:
            return self.roster.file
        if not isinstance(source, (str, Path)):
            return Path.cwd() / ROSTER_NAME
        return split_source(source)[0].absolute().parent / ROSTER_NAME

    def default_share(self, device_count: int) -> Share:
        """Return the share of who has none of their own.

        Args:
            device_count: how many devices can be given: without excluded and lost
                ones. 0 while none is known.
        """
        return self.default_share_from(device_count)[0]

    def share_for(
        self, user: str, groups: Collection[str], device_count: int
    ) -> tuple[Share, str]:
        """Return the share of a user, and the key of this file that says so.

        Args:
            user: the hub's name of the user.
            groups: the hub's groups that the user is in.
            device_count: as for `default_share`.
        """
        if user in self.shares.users:
            return self.shares.users[user], f"shares.users.{user}"
        if (of_the_roster := share_of(groups)) is not None:
            return of_the_roster
        for group, share in self.shares.groups.items():
            if group in groups:
                return share, f"shares.groups.{group}"
        return self.default_share_from(device_count)

    def default_share_from(self, device_count: int) -> tuple[Share, str]:
        """Return the default share, and what sets it, in words."""
        gpus = self.gpus
        if self.shares.default is not None:
            return self.shares.default, "shares.default"
        if gpus.memory_per_attendee is not None:
            share = Share(kind=ShareKind.MEMORY, memory_bytes=gpus.memory_per_attendee)
            return share, "gpus.memory_per_attendee"
        if gpus.attendees_per_gpu is not None:
            return Share.nth(gpus.attendees_per_gpu), "gpus.attendees_per_gpu"
        if self.attendees is not None and device_count > 0:
            parts = parts_for(self.attendees, device_count, gpus.oversubscribe)
            return Share.nth(parts), f"attendees: {self.attendees}"
        return Share.nth(ATTENDEES_PER_GPU), f"the default of {ATTENDEES_PER_GPU} a GPU"
