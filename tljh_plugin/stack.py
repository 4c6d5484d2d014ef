"""Which wheels serve the GPUs of this host.

PURE: the organiser's names and what the driver says in, pip's arguments out. What runs
pip is `packages`.

Sources, November 2026: PyTorch's release matrix (pytorch#190355, #190385: 2.15 is built
for CUDA 13 only, 13.2 on PyPI; 2.14 was the last for 12.6, 2.11 for 12.8), RAPIDS'
platform support (CUDA 12 from Volta, 13 from Turing on), CuPy's installation guide, and
the extras that jax, tensorflow and numba-cuda declare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_TURING = (7, 5)
_BLACKWELL = (10, 0)
_PYTORCH = "https://download.pytorch.org/whl"
_NVIDIA = "--extra-index-url=https://pypi.nvidia.com"

_TORCH = ("torch", "torchvision", "torchaudio")
_RAPIDS = {"rapids": ("cudf", "cuml"), "cudf": ("cudf",), "cuml": ("cuml",)}
_EXTRAS = {
    "cupy": ("cupy-cuda{major}x", "ctk"),
    "jax": ("jax", "cuda{major}"),
    "numba-cuda": ("numba-cuda", "cu{major}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """What the driver of this host offers.

    Attributes:
        cuda: the newest CUDA that it serves, ``(13, 0)``; None without a driver.
        capabilities: compute capabilities of the GPUs, as far as they are told.
        problem: why it is not known, in a sentence; else empty.
    """

    cuda: tuple[int, int] | None = None
    capabilities: tuple[tuple[int, int], ...] = ()
    problem: str = ""

    @property
    def major(self) -> int | None:
        """The CUDA whose wheels run on every GPU here; None where none does.

        CUDA 13 serves nothing before Turing, however new the driver.
        """
        if self.cuda is None or self.cuda < (12, 0):
            return None
        if self.cuda < (13, 0) or any(c < _TURING for c in self.capabilities):
            return 12
        return 13


@dataclass(frozen=True, slots=True, kw_only=True)
class PipCall:
    """One run of pip: what belongs together must be solved together.

    Attributes:
        names: as the organiser wrote them.
        arguments: for `pip install`.
    """

    names: tuple[str, ...]
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to install, and what not.

    Attributes:
        calls: in order.
        skipped: names for which there is no driver to choose by, or none new enough.
        reason: why they are skipped, in a sentence; else empty.
    """

    calls: tuple[PipCall, ...] = ()
    skipped: tuple[str, ...] = ()
    reason: str = ""


def plan(names: Sequence[str], driver: Driver) -> Plan:
    """Choose the wheels for the organiser's packages."""
    torch = tuple(name for name in names if _key(name) in _TORCH)
    chosen = {name for name in names if _is_chosen(name)}
    plain = tuple(name for name in names if name not in chosen)
    calls = [PipCall(names=plain, arguments=plain)] if plain else []
    major = driver.major
    if major is None:
        skipped = tuple(name for name in names if name in chosen)
        return Plan(
            calls=tuple(calls), skipped=skipped, reason=_why(driver) if skipped else ""
        )
    if torch:
        index = _torch_index(driver, major)
        calls.append(PipCall(names=torch, arguments=(*index, *torch)))
    calls += [
        PipCall(names=(name,), arguments=_arguments(name, major))
        for name in names
        if name in chosen and name not in torch
    ]
    return Plan(calls=tuple(calls))


def _is_chosen(name: str) -> bool:
    key = _key(name)
    return key in (*_TORCH, *_RAPIDS, *_EXTRAS, "tensorflow") and not _has_extras(name)


def _key(name: str) -> str:
    """Return a requirement's name; what is none of ours goes to pip as it is."""
    try:
        requirement = Requirement(name)
    except InvalidRequirement:
        return ""
    return "" if requirement.url else canonicalize_name(requirement.name)


def _has_extras(name: str) -> bool:
    """Whether the organiser has chosen already: ``jax[cuda12]``, say."""
    return bool(Requirement(name).extras)


def _torch_index(driver: Driver, major: int) -> tuple[str, ...]:
    """Return where PyTorch's wheels for this host are; its index has all they need."""
    if major == 13:
        newest = driver.cuda is not None and driver.cuda >= (13, 2)
        return () if newest else (f"--index-url={_PYTORCH}/cu130",)
    blackwell = any(c >= _BLACKWELL for c in driver.capabilities)
    return (f"--index-url={_PYTORCH}/{'cu128' if blackwell else 'cu126'}",)


def _arguments(name: str, major: int) -> tuple[str, ...]:
    requirement = Requirement(name)
    key = canonicalize_name(requirement.name)
    version = str(requirement.specifier)
    if key in _RAPIDS:
        parts = (f"{part}-cu{major}{version}" for part in _RAPIDS[key])
        return (_NVIDIA, *parts)
    if key == "tensorflow":  # built for CUDA 12 alone, which newer drivers serve too
        return (f"tensorflow[and-cuda]{version}",)
    wheel, extra = (text.format(major=major) for text in _EXTRAS[key])
    return (f"{wheel}[{extra}]{version}",)


def _why(driver: Driver) -> str:
    if driver.cuda is None:
        return driver.problem or "No NVIDIA driver answers on this machine."
    return (
        f"The NVIDIA driver serves CUDA {driver.cuda[0]}.{driver.cuda[1]}, and today's "
        "packages need 12.0 or newer: install a newer driver."
    )
