"""What a lease means to each framework, and what an admin may still say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.caps import (
    Environment,
    apply_lease,
    cap_bytes,
    cap_fraction,
    framework_variables,
    lease_variables,
    visible_devices,
)
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.units import GIB, MIB

FLOOR = 64 * MIB
HOOKED = ["GPUWORKSHOP_MEMORY_FRACTION", "GPUWORKSHOP_MEMORY_CAP_BYTES"]
SHORT, LONG = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"


def part(
    uuid: str = "GPU-a",
    label: str = "0",
    *,
    memory: int = 4 * GIB,
    total: int = 16 * GIB,
    context: int = 0,
) -> LeasedDevice:
    return LeasedDevice(
        uuid=uuid,
        label=label,
        memory_bytes=memory,
        total_bytes=total,
        context_bytes=context,
    )


def lease(*parts: LeasedDevice, share: str = "1/4", exclusive: bool = False) -> Lease:
    return Lease(
        id="1",
        user="ada",
        server="",
        share=share,
        exclusive=exclusive,
        devices=parts,
        granted_at=0.0,
    )


QUARTER = lease(part())
CPU = lease(share="cpu")


def applied(admin: dict[str, str], of: Lease = QUARTER) -> Environment:
    return apply_lease({"PATH": "/bin", **admin}, of, admin=admin)


# -- what the lease sets


def test_every_variable_of_a_lease_is_set():
    assert applied({}) == Environment(
        variables={
            "PATH": "/bin",
            "CUDA_VISIBLE_DEVICES": "GPU-a",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "NVIDIA_VISIBLE_DEVICES": "GPU-a",
            "GPUWORKSHOP_SHARE": "1/4",
            "GPUWORKSHOP_MEMORY_LIMIT_BYTES": str(4 * GIB),
            "GPUWORKSHOP_MEMORY_FRACTION": "0.2500",
            "GPUWORKSHOP_MEMORY_CAP_BYTES": str(4 * GIB),
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "TF_PER_DEVICE_MEMORY_LIMIT_MB": "4096",
            LONG: "0.2500",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "CUPY_GPU_MEMORY_LIMIT": str(4 * GIB),
            "FLAGS_gpu_memory_limit_mb": "4096",
            "CUDF_PANDAS_RMM_MODE": "cuda",
            "OLLAMA_GPU_OVERHEAD": str(12 * GIB),
        },
        overruled=(),
    )


def test_the_cuda_context_comes_off_the_caps_but_not_off_the_lease():
    with_context = lease(part(context=512 * MIB))
    assert cap_bytes(with_context) == 4 * GIB - 512 * MIB
    assert cap_fraction(with_context) == pytest.approx(3.5 / 16, abs=1e-4)
    variables = applied({}, with_context).variables
    assert variables["CUPY_GPU_MEMORY_LIMIT"] == str(4 * GIB - 512 * MIB)
    assert variables["GPUWORKSHOP_MEMORY_LIMIT_BYTES"] == str(4 * GIB)


def test_a_share_of_cpu_shows_no_device_and_caps_nothing():
    assert cap_bytes(CPU) == 0
    assert cap_fraction(CPU) == 0.0
    assert framework_variables(CPU) == {}
    assert lease_variables(CPU) == {
        "CUDA_VISIBLE_DEVICES": "-1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": "void",
        "GPUWORKSHOP_SHARE": "cpu",
    }


@pytest.mark.parametrize("value", ["0", "all", "GPU-a", "", "0,1"])
@pytest.mark.parametrize("of", [CPU, lease(part("GPU-b"))])
@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"])
def test_nobody_else_says_which_devices_are_visible(value: str, of: Lease, name: str):
    outcome = applied({name: value}, of)
    assert outcome.variables[name] == lease_variables(of)[name]
    (sentence,) = outcome.overruled
    assert f"{name}={value!r}" in sentence


@pytest.mark.parametrize(
    ("parts", "by_index", "expected"),
    [
        ([part("GPU-a", "3")], False, "GPU-a"),
        ([part("GPU-a", "3")], True, "3"),
        ([part("GPU-a", "3"), part("GPU-b", "0")], True, "3,0"),
        ([part("MIG-a", "0:1")], False, "MIG-a"),
        ([part("MIG-a", "0:1")], True, "MIG-a"),
        ([part("GPU-a", "1"), part("MIG-b", "0:1")], True, "GPU-a,MIG-b"),
        ([], True, "-1"),
        ([], False, "-1"),
    ],
)
def test_devices_are_shown_by_uuid_or_where_it_is_possible_by_index(
    parts: list[LeasedDevice], by_index: bool, expected: str
):
    assert visible_devices(lease(*parts), by_index=by_index) == expected
    shown = apply_lease({}, lease(*parts), admin={}, by_index=by_index).variables
    assert shown["CUDA_VISIBLE_DEVICES"] == expected
    # A container runtime knows its devices by UUID, whatever CUDA inside is told.
    assert shown["NVIDIA_VISIBLE_DEVICES"] == (
        ",".join(x.uuid for x in parts) or "void"
    )


def test_several_devices_are_capped_at_the_tightest():
    small = part("GPU-a", memory=12 * GIB, total=16 * GIB, context=GIB)
    large = part("GPU-b", "1", memory=60 * GIB, total=80 * GIB)
    variables = applied({}, lease(small, large)).variables
    assert variables["CUPY_GPU_MEMORY_LIMIT"] == str(11 * GIB)
    assert variables["TF_PER_DEVICE_MEMORY_LIMIT_MB"] == str(11 * 1024)
    assert variables[LONG] == "0.6875"
    # Ollama leaves it free on each: on the large one no more than 11 GiB is used.
    assert variables["OLLAMA_GPU_OVERHEAD"] == str(69 * GIB)
    assert variables["GPUWORKSHOP_MEMORY_LIMIT_BYTES"] == str(12 * GIB)


def test_only_a_lease_on_one_device_has_a_fraction_for_the_import_hook():
    # Several are whole devices, and a cap could cost a CUDA context on each.
    one = lease_variables(lease(part(context=GIB)))
    assert [one[name] for name in HOOKED] == ["0.1875", str(3 * GIB)]
    two = lease_variables(lease(part("GPU-a"), part("GPU-b", "1")))
    assert not two.keys() & set(HOOKED)


def test_a_slice_of_ones_own_is_not_capped_below_what_the_hardware_gives():
    own = lease(part("MIG-a", "0:1"), share="1 gpu", exclusive=True)
    assert not lease_variables(own).keys() & set(HOOKED)
    # Of a slice with others on it a part is a share, as of a GPU; and a GPU of one's
    # own is no slice: something must be left to keep free there.
    shared = lease(part("MIG-a", "0:1"))
    whole = lease(part("GPU-a"), share="1 gpu", exclusive=True)
    for of in (shared, whole):
        assert lease_variables(of).keys() >= set(HOOKED)


@pytest.mark.parametrize("of", [QUARTER, CPU])
def test_what_is_known_to_be_a_trap_is_never_set(of: Lease):
    names = {**lease_variables(of), **framework_variables(of)}.keys()
    assert not names & {
        "PYTORCH_CUDA_ALLOC_CONF",  # torch up to 2.9 throws at the option
        "PYTORCH_ALLOC_CONF",
        SHORT,  # with the other one: ValueError
        "TF_DEVICE_MIN_SYS_MEMORY_IN_MB",  # fails open
        "TF_GPU_ALLOCATOR",
        "XLA_PYTHON_CLIENT_ALLOCATOR",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
    }


# -- what an admin set

KEPT = [
    (LONG, "0.1"),
    (LONG, "0.25"),
    (LONG, ".2"),
    (LONG, "1e-2"),
    ("CUPY_GPU_MEMORY_LIMIT", str(GIB)),
    ("CUPY_GPU_MEMORY_LIMIT", str(4 * GIB)),
    ("CUPY_GPU_MEMORY_LIMIT", "25%"),
    ("CUPY_GPU_MEMORY_LIMIT", "12.5%"),
    ("TF_PER_DEVICE_MEMORY_LIMIT_MB", "100"),
    ("TF_FORCE_GPU_ALLOW_GROWTH", "true"),
    ("FLAGS_gpu_memory_limit_mb", "4096"),
    ("OLLAMA_GPU_OVERHEAD", str(13 * GIB)),
    ("XLA_PYTHON_CLIENT_PREALLOCATE", "true"),
    ("CUDF_PANDAS_RMM_MODE", "managed"),
    ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
    ("TF_GPU_ALLOCATOR", "cuda_malloc"),
    ("XLA_PYTHON_CLIENT_ALLOCATOR", "bfc"),
    ("OMP_NUM_THREADS", "4"),
]
BROKEN = [
    (LONG, "0.2501"),
    (LONG, "0.9"),
    (LONG, "0"),
    (LONG, "-0.1"),
    (LONG, "nan"),
    (LONG, "inf"),
    (LONG, "20%"),
    (LONG, ""),
    (LONG, "a fifth"),
    ("CUPY_GPU_MEMORY_LIMIT", str(4 * GIB + 1)),
    ("CUPY_GPU_MEMORY_LIMIT", "0"),
    ("CUPY_GPU_MEMORY_LIMIT", "26%"),
    ("CUPY_GPU_MEMORY_LIMIT", "0%"),
    ("CUPY_GPU_MEMORY_LIMIT", "nan%"),
    ("CUPY_GPU_MEMORY_LIMIT", "%"),
    ("CUPY_GPU_MEMORY_LIMIT", "-1"),
    ("CUPY_GPU_MEMORY_LIMIT", "1GiB"),
    ("CUPY_GPU_MEMORY_LIMIT", ""),
    ("TF_PER_DEVICE_MEMORY_LIMIT_MB", "5000"),
    ("TF_PER_DEVICE_MEMORY_LIMIT_MB", "0"),
    ("TF_PER_DEVICE_MEMORY_LIMIT_MB", "10%"),
    ("TF_FORCE_GPU_ALLOW_GROWTH", "false"),
    ("TF_FORCE_GPU_ALLOW_GROWTH", "1"),
    ("FLAGS_gpu_memory_limit_mb", "4097"),
    ("FLAGS_gpu_memory_limit_mb", "0"),
    ("FLAGS_gpu_memory_limit_mb", "lots"),
    ("FLAGS_gpu_memory_limit_mb", "9" * 5000),
    ("OLLAMA_GPU_OVERHEAD", str(12 * GIB - 1)),
    ("OLLAMA_GPU_OVERHEAD", "0"),
    ("OLLAMA_GPU_OVERHEAD", "0.9"),
    ("OLLAMA_GPU_OVERHEAD", "inf"),
    ("OLLAMA_GPU_OVERHEAD", "9" * 5000),
    ("CUDA_DEVICE_ORDER", "FASTEST_FIRST"),
    ("GPUWORKSHOP_MEMORY_LIMIT_BYTES", str(99 * GIB)),
    ("GPUWORKSHOP_MEMORY_FRACTION", "0.9"),
    ("GPUWORKSHOP_MEMORY_CAP_BYTES", str(99 * GIB)),
    ("GPUWORKSHOP_SHARE", "1 gpu"),
]


@pytest.mark.parametrize(("name", "value"), KEPT)
def test_what_an_admin_set_stays(name: str, value: str):
    outcome = applied({name: value})
    assert outcome.variables[name] == value
    assert outcome.overruled == ()


@pytest.mark.parametrize(("name", "value"), BROKEN)
def test_what_would_break_the_lease_is_replaced_and_told(name: str, value: str):
    ours = {**lease_variables(QUARTER), **framework_variables(QUARTER)}[name]
    outcome = applied({name: value})
    assert outcome.variables[name] == ours
    assert outcome.overruled == (
        f"Spawner.environment sets {name}={value!r}, which would break the lease of "
        f"ada (1/4): {ours!r} is set instead.",
    )


@pytest.mark.parametrize("name", sorted({name for name, _ in KEPT + BROKEN} | {SHORT}))
@pytest.mark.parametrize("value", [0, 1, 0.1, True, None, 10**30, ("a",), b"0"])
@pytest.mark.parametrize("of", [QUARTER, CPU])
def test_a_value_that_is_no_text_does_no_harm(name: str, value: object, of: Lease):
    admin: dict[str, str] = {name: value}  # type: ignore[dict-item]  # as admins do
    outcome = applied(admin, of)
    assert outcome.variables["CUDA_VISIBLE_DEVICES"] == visible_devices(of)
    if name in outcome.variables and outcome.variables[name] != value:
        assert len(outcome.overruled) == 1


def test_what_was_inherited_but_not_set_by_the_admin_is_replaced_in_silence():
    inherited = {
        LONG: "0.1",
        "CUDA_VISIBLE_DEVICES": "0",
        "OLLAMA_GPU_OVERHEAD": "0",
    }
    outcome = apply_lease(inherited, QUARTER, admin={})
    assert outcome.overruled == ()
    assert outcome.variables[LONG] == "0.2500"
    assert outcome.variables["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert outcome.variables["OLLAMA_GPU_OVERHEAD"] == str(12 * GIB)


def test_pytorchs_allocator_settings_are_never_touched():
    # torch up to 2.9 throws at an option that it does not know.
    assert "PYTORCH_CUDA_ALLOC_CONF" not in applied({}).variables
    name, value = "PYTORCH_CUDA_ALLOC_CONF", "per_process_memory_fraction:0.9"
    assert applied({name: value}).variables[name] == value


ALLOCATORS = {
    "TF_GPU_ALLOCATOR": "cuda_malloc_async",
    "XLA_PYTHON_CLIENT_ALLOCATOR": "platform",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [*ALLOCATORS.items(), ("XLA_PYTHON_CLIENT_ALLOCATOR", "Platform")],
)
def test_an_allocator_that_ignores_caps_is_left_out(name: str, value: str):
    outcome = applied({name: value})
    assert name not in outcome.variables
    (sentence,) = outcome.overruled
    assert sentence.endswith("it is left out instead.")
    inherited = apply_lease({name: value}, QUARTER, admin={})
    assert name not in inherited.variables
    assert inherited.overruled == ()


def test_without_a_device_there_is_nothing_an_allocator_could_break():
    outcome = applied({**ALLOCATORS, LONG: "0.9"}, CPU)
    assert outcome.variables.items() >= {**ALLOCATORS, LONG: "0.9"}.items()
    assert outcome.overruled == ()


@pytest.mark.parametrize(
    ("admin", "expected", "overruled"),
    [
        ({}, {LONG: "0.2500"}, 0),
        ({SHORT: "0.1"}, {SHORT: "0.1"}, 0),
        ({SHORT: "0.9"}, {LONG: "0.2500"}, 1),
        ({SHORT: "rubbish"}, {LONG: "0.2500"}, 1),
        ({SHORT: "0.1", LONG: "0.1"}, {SHORT: "0.1"}, 1),
        ({SHORT: "0.9", LONG: "0.1"}, {LONG: "0.1"}, 1),
        ({SHORT: "0.9", LONG: "0.9"}, {LONG: "0.2500"}, 2),
        ({SHORT: "0.1", LONG: "0.9"}, {SHORT: "0.1"}, 1),
    ],
)
def test_jax_gets_one_of_its_two_fractions(
    admin: dict[str, str], expected: dict[str, str], overruled: int
):
    outcome = applied(admin)
    got = {k: v for k, v in outcome.variables.items() if k in (SHORT, LONG)}
    assert got == expected
    assert len(outcome.overruled) == overruled


@pytest.mark.parametrize("inherited", [{SHORT: "0.9"}, {SHORT: "0.1", LONG: "0.1"}])
def test_jax_gets_one_fraction_where_the_hubs_environment_has_another(
    inherited: dict[str, str],
):
    outcome = apply_lease(inherited, QUARTER, admin={})
    assert SHORT not in outcome.variables
    assert outcome.variables[LONG] == "0.2500"
    assert outcome.overruled == ()


def test_the_environment_that_was_handed_in_is_not_changed():
    environment = {SHORT: "0.9", "TF_GPU_ALLOCATOR": "cuda_malloc_async"}
    apply_lease(environment, QUARTER, admin=environment)
    assert environment == {SHORT: "0.9", "TF_GPU_ALLOCATOR": "cuda_malloc_async"}


# -- for every lease there can be


@st.composite
def parts(draw: st.DrawFn) -> LeasedDevice:
    total = draw(st.integers(4 * GIB, 600 * GIB))
    memory = draw(st.integers(1, total))
    context = draw(st.sampled_from([0, 300 * MIB, 518 * MIB, 2 * GIB]))
    number = draw(st.integers(0, 99))
    return part(
        f"GPU-{number}", str(number), memory=memory, total=total, context=context
    )


leases = st.lists(parts(), min_size=1, max_size=8).map(lambda x: lease(*x))
values = st.one_of(
    st.text("0123456789.e%-_+ x", max_size=6),
    st.integers(-1, 2**64).map(str),
    st.floats(0, 1).map(str),
    st.floats().map(lambda x: f"{x}%"),
)
names = st.sampled_from(
    [SHORT, LONG, *framework_variables(QUARTER), *lease_variables(QUARTER)]
)


@given(leases)
def test_no_cap_is_above_the_lease_but_for_the_smallest_there_is(of: Lease):
    variables = framework_variables(of)
    tightest = max(FLOOR, min(x.memory_bytes - x.context_bytes for x in of.devices))
    assert cap_bytes(of) == tightest
    assert 0 < int(variables["CUPY_GPU_MEMORY_LIMIT"]) <= tightest
    for name in ("TF_PER_DEVICE_MEMORY_LIMIT_MB", "FLAGS_gpu_memory_limit_mb"):
        assert 0 < int(variables[name]) * MIB <= tightest
    for x in of.devices:
        limit = max(FLOOR, x.memory_bytes - x.context_bytes)
        assert 0 < float(variables[LONG]) * x.total_bytes <= limit
        assert x.total_bytes - int(variables["OLLAMA_GPU_OVERHEAD"]) <= limit
    assert float(variables[LONG]) <= cap_fraction(of)
    if len(of.devices) == 1:
        hooked = lease_variables(of)["GPUWORKSHOP_MEMORY_FRACTION"]
        assert 0 < float(hooked) <= cap_fraction(of)


@given(leases, st.dictionaries(names, values), st.booleans())
def test_whatever_an_admin_set_the_lease_holds(
    of: Lease, admin: dict[str, str], by_index: bool
):
    outcome = apply_lease(admin, of, admin=admin, by_index=by_index)
    result = outcome.variables
    assert {SHORT, LONG} & set(result) in ({SHORT}, {LONG})
    fraction = float(result.get(SHORT, result.get(LONG, "")))
    assert 0 < fraction <= cap_fraction(of)
    assert lease_variables(of, by_index=by_index).items() <= result.items()
    for name in ("TF_PER_DEVICE_MEMORY_LIMIT_MB", "FLAGS_gpu_memory_limit_mb"):
        assert 0 < int(result[name]) * MIB <= cap_bytes(of)
    cupy = result["CUPY_GPU_MEMORY_LIMIT"]
    for x in of.devices:
        limit = max(FLOOR, x.memory_bytes - x.context_bytes)
        if cupy.endswith("%"):
            assert 1 <= float(cupy[:-1]) / 100 * x.total_bytes <= limit + 1
        else:
            assert 0 < int(cupy) <= limit
        assert x.total_bytes - int(result["OLLAMA_GPU_OVERHEAD"]) <= limit
    changed = {name for name in admin if result.get(name) != admin[name]}
    assert len(outcome.overruled) == len(changed)
    assert all(any(f"{n}=" in s for s in outcome.overruled) for n in changed)


def test_a_percentage_of_less_than_a_byte_would_be_no_limit_to_cupy():
    part = LeasedDevice(uuid="GPU-0", label="0", memory_bytes=GIB, total_bytes=4 * GIB)
    admin = {"CUPY_GPU_MEMORY_LIMIT": "5e-324%"}
    outcome = apply_lease(admin, lease(part), admin=admin)
    assert int(outcome.variables["CUPY_GPU_MEMORY_LIMIT"]) > 0
    assert len(outcome.overruled) == 1
