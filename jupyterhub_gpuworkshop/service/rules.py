"""The organiser's rules, read again when the workshop file changes.

Owns which workshop file is in force. A broken edit leaves the last good one in force,
and says so.
"""

import json
import logging
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.core.placement import PlacementRules, Policy
from jupyterhub_gpuworkshop.core.rules import IdleRules, OverShareRules, ParkingRules
from jupyterhub_gpuworkshop.machine.stamps import Stamp, stamp_of
from jupyterhub_gpuworkshop.workshop import Workshop
from jupyterhub_gpuworkshop.workshop_reading import split_source


class Rules:
    """The workshop, as it stands now.

    Args:
        source: the path of the workshop file, with ``#section`` behind it where it
            is a section of a larger one; or its content as a JSON object.
        log: where changes go.

    Attributes:
        workshop: what is in force.
        problem: why a newer edit is not, in a sentence; else empty.

    Raises:
        WorkshopFileError: there is nothing good to begin with.
    """

    def __init__(
        self, source: str, log: "logging.Logger | logging.LoggerAdapter[logging.Logger]"
    ) -> None:
        self._log = log
        self._source = source
        self._path: Path | None = None
        self._stamp: Stamp | None = None
        self.problem = ""
        if source.lstrip().startswith("{"):
            try:
                self.workshop = Workshop.load(json.loads(source))
            except ValueError as error:
                raise WorkshopFileError(
                    f"GPUWORKSHOP_WORKSHOP is neither a path nor JSON: {error}"
                ) from None
        elif source:
            self._path = split_source(source)[0]
            self._stamp = stamp_of(self._path)
            self.workshop = Workshop.load(source)
        else:
            self.workshop = Workshop.load({})

    def refresh(self) -> None:
        """Read the file again where it has changed."""
        if self._path is None:
            return
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.workshop = Workshop.load(self._source)
        except WorkshopFileError as error:
            self.problem = f"The workshop file's last good version is in force: {error}"
            self._log.error("%s", self.problem)
        else:
            self.problem = ""
            self._log.info(
                "The workshop file was read again: `idle`, `over_share`, `parking` and "
                "`metrics` are as it says now, and the rest takes a restart of hub and "
                "service"
            )

    def idle(self) -> IdleRules:
        """Return the rules of reclaim that are in force."""
        idle, monitor = self.workshop.idle, self.workshop.monitor
        return IdleRules(
            needed_after_seconds=idle.needed_after,
            after_seconds=idle.after,
            min_memory_bytes=idle.min_memory,
            notice_seconds=idle.notice_seconds,
            max_cpu=idle.max_cpu,
            action=idle.action,
            group_actions=idle.groups,
            without_utilisation=idle.without_utilisation,
            pin_max_seconds=idle.pin_max,
            server_after_seconds=idle.server_after,
            dry_run=idle.dry_run,
            # One slow round is no gap; two lost ones are.
            max_gap_seconds=3 * monitor.interval + 2 * monitor.timeout,
        )

    def placement(self) -> PlacementRules:
        """Return the rules by which the hub places, as the file has them."""
        gpus = self.workshop.gpus
        return PlacementRules(
            policy=Policy(gpus.placement),
            keep_free_bytes=gpus.keep_free_per_gpu,
            oversubscribe=gpus.oversubscribe,
            exclude=tuple(gpus.exclude),
            sticky=gpus.sticky,
        )

    def over_share(self) -> OverShareRules:
        """Return the rules of the watchdog that are in force."""
        over_share = self.workshop.over_share
        return OverShareRules(grace_seconds=over_share.grace, action=over_share.action)

    def parking(self) -> ParkingRules:
        """Return the rules of parking that are in force."""
        parking = self.workshop.parking
        return ParkingRules(
            margin_bytes=parking.margin,
            keep_free_host_bytes=parking.keep_free_host_memory,
            make_room_after_seconds=parking.make_room_after,
        )
