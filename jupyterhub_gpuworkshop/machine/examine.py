"""``python -m jupyterhub_gpuworkshop.machine.examine``: a deep look at the driver.

What the doctor asks of NVML, in a child of its own: it prints an `Examination` as JSON
and exits with 0, also where there is nothing to see. A driver that hangs hangs this
process, and whoever started it kills it. It changes nothing.
"""

import sys
from dataclasses import replace
from typing import Any

from jupyterhub_gpuworkshop.core.devices import Device
from jupyterhub_gpuworkshop.core.errors import SourceError

from . import nvml_calls as nvml
from .examination import EXAMINATION, Condition, Examination, ExaminedGpu


def examine() -> Examination:
    """Ask the driver for everything; a GPU that does not answer says so."""
    try:
        with nvml.source_errors():
            nvml.start()
            seen = nvml.versions()
            count = nvml.count_gpus()
    except SourceError as error:
        return Examination(problem=str(error), trouble=nvml.trouble(error.__cause__))
    gpus: list[ExaminedGpu] = []
    conditions: list[Condition] = []
    for index in range(count):
        try:
            found = [_examine(*opened[:2]) for opened in nvml.open_gpu(index)]
            condition = nvml.condition(index)
        except nvml.NVMLError as error:
            gpus.append(ExaminedGpu(label=str(index), problem=str(error)))
            continue
        gpus += found
        slices = len(found) if condition.mig else 0
        conditions.append(replace(condition, slices=slices))
    return replace(seen, gpus=tuple(gpus), conditions=tuple(conditions))


def _examine(device: Device, handle: Any) -> ExaminedGpu:
    problem = ""
    try:
        holders = nvml.processes(handle)
    except nvml.NVMLError as error:
        holders, problem = None, f"The driver does not list processes: {error}."
    return ExaminedGpu(
        label=device.label,
        uuid=device.uuid,
        name=device.name,
        minor=device.minor,
        memory_bytes=device.memory_bytes,
        used_bytes=nvml.memory(handle).used,
        holders=holders,
        tells_utilisation=_tells_utilisation(device, handle),
        problem=problem,
    )


def _tells_utilisation(device: Device, gpu: Any) -> bool:
    """Ask as the service does, which does not ask slices at all."""
    if device.parent_uuid is not None:
        return False
    by_process, _ = nvml.processes_at_work(gpu, 0)
    as_a_whole, _ = nvml.utilisation(gpu, 0)
    return by_process is not None or as_a_whole is not None


def main() -> None:
    """Print the examination."""
    sys.stdout.write(EXAMINATION.dump_json(examine()).decode() + "\n")


if __name__ == "__main__":
    main()
