"""Every check by its name, and what it looks at.

Owns the names. The reference in the docs is made from it, and tests hold judges to
it.
"""

AREAS = {
    "workshop": "The workshop",
    "gpus": "GPUs and driver",
    "host": "This machine",
    "containers": "Containers",
    "hub": "JupyterHub",
    "address": "The address",
    "service": "The GPU service",
    "caps": "Caps",
}
"""The areas, in the order in which they are shown."""

CHECKS = {
    "workshop.file": "The workshop file: there, and without a mistake.",
    "workshop.places": "A place on the GPUs for every attendee expected.",
    "workshop.doors": "Opening hours are still to come, where there are any.",
    "workshop.material": "What the workshop file names as material is installed.",
    "gpus.driver": "The driver answers; driver, NVML and kernel module fit together.",
    "gpus.devices": "Every NVIDIA GPU on the bus is one that the driver sees and that "
    "answers; memory of each.",
    "gpus.compute-mode": "No GPU in an exclusive or prohibited compute mode, which "
    "keeps all but the first process out.",
    "gpus.lock": "No software that locks a whole GPU, as CNTK does with a file in "
    "/var/lock.",
    "gpus.mig": "MIG: what is on, that it has slices, and no change that waits for a "
    "reset.",
    "gpus.utilisation": "The driver tells utilisation, by process or by GPU: where it "
    "tells neither, as on MIG slices, nothing is reclaimed.",
    "gpus.parking": "Idle kernels can be parked, where idle.action or idle.groups says "
    "so.",
    "gpus.persistence": "Persistence mode, without which the driver unloads between "
    "two notebooks.",
    "gpus.memory-errors": "ECC: no uncorrected errors, no memory that waits for a "
    "reset or cannot be repaired.",
    "gpus.xid": "No Xid, the driver's word for trouble, in the kernel's log since "
    "boot.",
    "gpus.foreign": "No process outside the hub that holds more memory than is kept "
    "free.",
    "host.devices": "The nodes /dev/nvidia* exist and attendees may open them.",
    "host.uvm": "/dev/nvidia-uvm, which may be missing after a boot until somebody "
    "needs it, and CUDA needs it.",
    "host.cgroups": "The version of cgroups, and the dmem controller that hard caps "
    "need.",
    "host.hidepid": "/proc is not mounted so that the service sees no processes.",
    "host.systemd": "systemd is there where servers are started by it, and well.",
    "host.selinux": "SELinux allows containers to use the GPUs.",
    "host.disk": "Room on disk, and inodes, for the attendees' homes.",
    "host.memory": "Host memory for the attendees' servers.",
    "host.material": "The folder of material stays through a reboot, attendees can "
    "read it and not change it, and an update has room.",
    "host.archives": "The folder of collected work stays through a reboot.",
    "host.hook": "The import hook's folder can be read by attendees.",
    "containers.engine": "Docker or Podman: there where servers are containers, and "
    "answering.",
    "containers.nvidia": "NVIDIA's runtime or a CDI specification, made for the driver "
    "that runs.",
    "containers.daemon-reload": "Containers keep their GPUs after systemctl "
    "daemon-reload.",
    "containers.image": "The attendees' image is pulled already.",
    "hub.config": "The hub's configuration loads, and shares GPUs.",
    "hub.version": "JupyterHub's version is one that we support.",
    "hub.spawner": "The spawner has our mixin, leftmost among its bases.",
    "hub.remove": "DockerSpawner removes containers, which would keep their old GPU.",
    "hub.isolate-devices": "SystemdSpawner does not hide all devices.",
    "hub.timeouts": "A class that starts together has the time to.",
    "hub.spawn-limits": "Spawn and server limits leave room for the attendees "
    "expected, and refusals do not stop the hub.",
    "hub.memory-limit": "A limit on the host memory of each server.",
    "hub.culler": "No idle culler that is quicker than our own rules.",
    "address.reachable": "A hub answers at the address that attendees will use.",
    "address.https": "It does so with HTTPS, and the certificate is good for a while.",
    "service.reachable": "The GPU service answers.",
    "service.sampling": "It sees the GPUs, and saw them just now.",
    "service.link": "The hub reports to it.",
    "service.scopes": "The scopes that it, organisers and attendees need are given.",
    "service.servers": "It reaches every attendee's server.",
    "caps.gpu": "A device on which caps can be proven without disturbing anybody.",
    "caps.python": "The Python that attendees' kernels run in.",
    "caps.torch": "PyTorch computes right, and keeps to the cap.",
    "caps.tensorflow": "TensorFlow computes right, and keeps to the cap.",
    "caps.jax": "JAX computes right, and keeps to the cap.",
    "caps.cupy": "CuPy computes right, and keeps to the cap.",
    "caps.cudf": "cuDF computes right, and what it gets without a cap.",
    "caps.simcuda": "Simulated GPUs: simcuda keeps to the cap.",
}
"""What each check looks at, by name."""
