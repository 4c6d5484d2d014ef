"""Simulated GPUs as a kernel meets them, each kernel a process of its own."""

import ast
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.errors import UnitError
from jupyterhub_gpuworkshop.core.units import GIB, MIB, parse_size
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.notebook import simsizes, simstate
from tests.simulated_kernel import PROGRAM, ROOT, CellError, SimulatedKernel

UUIDS = ("GPU-11aa", "GPU-11bb", "GPU-22cc")
Start = Callable[..., SimulatedKernel]


@functools.lru_cache(maxsize=1)
def find_python38() -> str | None:
    """Return a Python 3.8 that works, the oldest that kernels may run on."""
    known = sorted(Path("~/.pyenv/versions").expanduser().glob("3.8*/bin/python"))
    on_path = shutil.which("python3.8")
    for python in [*map(str, known), *([on_path] if on_path else [])]:
        # pyenv puts a python3.8 on the PATH that may only say that it is none.
        tried = subprocess.run([python, "-c", ""], capture_output=True)  # noqa: S603 - a Python
        if tried.returncode == 0:
            return python
    return None


def python38_or_skip() -> str:
    python = find_python38()
    if python is None:
        pytest.skip("no Python 3.8: install one as python3.8 on the PATH, or by pyenv")
    return python


@pytest.fixture(params=["this Python", "Python 3.8"])
def python(request: pytest.FixtureRequest) -> str:
    return sys.executable if request.param == "this Python" else python38_or_skip()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    create_devices(tmp_path / "gpus", 2, 4 * GIB)
    return tmp_path / "gpus"


@pytest.fixture
def start(python: str, state_dir: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def start_one(**environment: str) -> SimulatedKernel:
            kernel = SimulatedKernel(python, state_dir, environment)
            return stack.enter_context(kernel)

        yield start_one


def records(state_dir: Path) -> list[Path]:
    return list(state_dir.glob("*-*.json"))


def test_allocated_memory_is_missing_for_all_and_freed_memory_comes_back(
    start: Start,
) -> None:
    one, other = start(), start()
    one.run("weights = simcuda.allocate('1GiB')")
    assert one.run("weights.size_bytes") == GIB
    assert one.run("simcuda.memory_info()") == [3 * GIB, 4 * GIB]
    assert other.run("simcuda.memory_info()") == [3 * GIB, 4 * GIB]
    assert other.run("simcuda.memory_info(1)") == [4 * GIB, 4 * GIB]
    one.run("weights.free()")
    one.run("weights.free()")
    assert other.run("simcuda.memory_info()") == [4 * GIB, 4 * GIB]
    assert "freed" in one.run("repr(weights)")


def test_a_record_that_becomes_shorter_is_read_all_the_same(start: Start) -> None:
    one, other = start(), start()
    one.run("kept, dropped = simcuda.allocate(1), simcuda.allocate('3GiB')")
    one.run("dropped.free()")
    assert other.run("simcuda.memory_info()[0]") == 4 * GIB - 1


def test_a_buffer_is_freed_by_with_and_by_the_garbage_collector(start: Start) -> None:
    kernel = start()
    kernel.run(
        "with simcuda.allocate(1024) as b:\n    during = simcuda.memory_info(0)[0]"
    )
    assert kernel.run("during") == 4 * GIB - 1024
    kernel.run("b = simcuda.allocate(2048); c = [b]; c.append(c)")
    assert kernel.run("simcuda.memory_info()[0]") == 4 * GIB - 2048
    kernel.run("del b, c; gc.collect()")
    assert kernel.run("simcuda.memory_info()[0]") == 4 * GIB


def test_a_device_gives_no_more_than_it_has(start: Start) -> None:
    one, other = start(), start()
    one.run("weights = simcuda.allocate('3GiB')")
    with pytest.raises(CellError) as refused:
        other.run("simcuda.allocate('2GiB')")
    assert str(refused.value) == (
        "Out of memory on GPU 0: asked for 2 GiB; your share: none is set; "
        "this process holds 0 bytes; free on the device: 1 GiB."
    )
    assert refused.value.classes[:2] == ["OutOfMemoryError", "MemoryError"]
    assert other.run("simcuda.allocate('1GiB').size_bytes") == GIB


def test_a_capped_process_gets_its_share_of_each_device_and_no_more(
    start: Start,
) -> None:
    kernel = start(GPUWORKSHOP_MEMORY_LIMIT_BYTES=str(GIB))
    kernel.run("held = [simcuda.allocate('768MiB')]")
    with pytest.raises(
        CellError, match=r"share: 1 GiB; .* holds 768 MiB; .* 3\.25 GiB"
    ):
        kernel.run("held.append(simcuda.allocate('512MiB'))")
    kernel.run("held.append(simcuda.allocate('1GiB', device=1))")
    kernel.run("held.append(simcuda.allocate('256MiB'))")
    assert kernel.run("simcuda.memory_info()") == [3 * GIB, 4 * GIB]


def test_the_environment_is_read_at_the_first_call(start: Start) -> None:
    kernel = start(CUDA_VISIBLE_DEVICES="1")
    kernel.run("os.environ['CUDA_VISIBLE_DEVICES'] = '0,1'")
    assert kernel.run("simcuda.device_count()") == 2
    kernel.run("os.environ['CUDA_VISIBLE_DEVICES'] = ''")
    assert kernel.run("simcuda.device_count()") == 2


def test_memory_is_gone_when_its_process_is_killed_though_not_yet_reaped(
    start: Start, state_dir: Path
) -> None:
    one, other = start(), start()
    one.run("weights = simcuda.allocate('3GiB')")
    assert len(records(state_dir)) == 1
    one.kill()
    assert other.run("simcuda.memory_info()[0]") == 4 * GIB
    assert records(state_dir) == []


def test_a_process_that_ends_takes_its_record_along(
    start: Start, state_dir: Path
) -> None:
    kernel = start()
    kernel.run("weights = simcuda.allocate('3GiB')")
    kernel.end()
    assert records(state_dir) == []
    assert kernel.process.returncode == 0


def test_a_forked_child_holds_nothing_of_its_parent(start: Start) -> None:
    parent, other = start(), start()
    parent.run(FORK)
    child = parent.run("child")
    try:
        seen_by_child = parent.run("json.loads(os.read(ready, 100))")
        assert seen_by_child == [768 * MIB, 4 * GIB]
        assert other.run("simcuda.memory_info()[0]") == 768 * MIB
        parent.kill()
        assert other.run("simcuda.memory_info()[0]") == 4 * GIB - 256 * MIB
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_new_program_in_the_same_process_holds_nothing_of_the_old_one(
    start: Start,
) -> None:
    kernel = start()
    kernel.run("weights = simcuda.allocate('3GiB')")
    program = 'print(\'{"value": "anew"}\', flush=True)' + PROGRAM
    kernel.send(f"os.execv(sys.executable, [sys.executable, '-c', {program!r}])")
    assert kernel.receive() == "anew"
    assert kernel.run("simcuda.memory_info()[0]") == 4 * GIB


def test_many_processes_at_once_never_get_more_than_there_is(start: Start) -> None:
    kernels = [start() for _ in range(8)]
    for kernel in kernels:
        kernel.run(GREEDY)
    for kernel in kernels:
        kernel.send("take_all()")
    taken = [kernel.receive() for kernel in kernels]
    assert sum(taken) == 4 * GIB // (64 * MIB)
    assert kernels[0].run("simcuda.memory_info()[0]") == 0


def test_threads_that_take_and_drop_memory_leave_nothing_behind(start: Start) -> None:
    kernel, other = start(GPUWORKSHOP_MEMORY_LIMIT_BYTES=str(GIB)), start()
    kernel.run(CHURN)
    assert kernel.run("churn()") == []
    assert kernel.run("simcuda.memory_info()[0]") == 4 * GIB
    assert other.run("simcuda.memory_info()[0]") == 4 * GIB


def test_memory_dropped_in_the_middle_of_a_call_is_given_back_when_it_ends(
    start: Start,
) -> None:
    kernel, other = start(), start()
    kernel.run("weights = simcuda.allocate('1GiB')")
    kernel.run("with simcuda._context._alone():\n    del weights; gc.collect()")
    assert other.run("simcuda.memory_info()[0]") == 4 * GIB


def test_a_computation_can_be_interrupted(start: Start, state_dir: Path) -> None:
    kernel = start()
    kernel.send("simcuda.compute(3600)")
    while not any(
        b'"busy_since": null' not in r.read_bytes()
        for r in records(state_dir)
        if r.stat().st_size
    ):
        assert kernel.process.poll() is None
    kernel.process.send_signal(signal.SIGINT)
    with pytest.raises(CellError) as interrupted:
        kernel.receive()
    assert interrupted.value.classes[0] == "KeyboardInterrupt"
    (record,) = records(state_dir)
    assert b'"busy_since": null' in record.read_bytes()


def test_without_a_simulation_there_are_no_devices_and_a_reason(start: Start) -> None:
    kernel = start(GPUWORKSHOP_SIMULATED_GPUS="")
    assert kernel.run("simcuda.device_count()") == 0
    with pytest.raises(CellError, match="SIMULATED_GPUS is not set"):
        kernel.run("simcuda.allocate(1)")
    kernel = start(GPUWORKSHOP_SIMULATED_GPUS="/nonexistent")
    with pytest.raises(CellError, match=r"/nonexistent/devices\.json"):
        kernel.run("simcuda.device_count()")


def test_a_device_that_is_not_visible_is_refused_with_the_reason(start: Start) -> None:
    kernel = start(CUDA_VISIBLE_DEVICES="1")
    assert kernel.run("simcuda.device_count()") == 1
    for call in ("allocate(1, device=1)", "compute(0, device=1)", "memory_info(-1)"):
        with pytest.raises(CellError, match=r"sees 1 \(CUDA_VISIBLE_DEVICES is '1'"):
            kernel.run(f"simcuda.{call}")


def test_a_cap_that_is_no_number_is_refused_rather_than_ignored(start: Start) -> None:
    kernel = start(GPUWORKSHOP_MEMORY_LIMIT_BYTES="4GiB")
    with pytest.raises(CellError, match="write a number of bytes"):
        kernel.run("simcuda.allocate(1)")


def test_a_buffer_outlives_the_end_of_the_simulation(
    start: Start, state_dir: Path
) -> None:
    kernel = start()
    kernel.run("weights = simcuda.allocate('1GiB')")
    shutil.rmtree(state_dir)
    kernel.run("weights.free()")
    with pytest.raises(CellError, match="Cannot take memory"):
        kernel.run("simcuda.allocate(1)")
    with pytest.raises(CellError, match="Cannot be busy"):
        kernel.run("simcuda.compute(0)")
    kernel.end()
    assert kernel.process.returncode == 0
    assert not state_dir.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be several users")
def test_users_see_each_other_and_cannot_touch_each_other(python: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        state_dir = Path(folder) / "gpus"
        create_devices(state_dir, 1, 4 * GIB)
        with (
            SimulatedKernel(python, state_dir) as ada,
            SimulatedKernel(python, state_dir) as bob,
        ):
            ada.run("os.umask(0o077); os.setuid(20001)")
            bob.run("os.setuid(20002)")
            ada.run("weights = simcuda.allocate('3GiB')")
            assert bob.run("simcuda.memory_info()[0]") == GIB
            (record,) = records(state_dir)
            with pytest.raises(CellError, match="not permitted"):
                bob.run(f"os.unlink({str(record)!r})")
            with pytest.raises(CellError, match="denied"):
                bob.run(f"open({str(record)!r}, 'a')")
            # A record that bob writes in ada's name is bob's file, and counts for none.
            forged = record.with_name(record.name[:-21] + "0" * 16 + ".json")
            content = record.read_bytes()
            bob.run(FORGE.format(content=content, name=record.name, path=str(forged)))
            assert bob.run("simcuda.memory_info()[0]") == GIB
            ada.kill()
            assert bob.run("simcuda.memory_info()[0]") == 4 * GIB
            assert records(state_dir) == [record]  # ada's: for root to remove


DEVICES = [simstate.Device(uuid, GIB, GIB) for uuid in UUIDS]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", [0]),
        ("2,0", [2, 0]),
        (" 1 , 2", [1, 2]),
        ("1gpu", [1]),
        ("0,-1,1", [0]),
        ("0,7,1", [0]),
        ("0,,1", [0]),
        ("1,1", []),
        ("0,9,0", [0]),
        ("GPU-22cc", [2]),
        ("GPU-22cc,GPU-11aa", [2, 0]),
        ("GPU-2", [2]),
        ("GPU-11", []),
        ("GPU-22cc,GPU-11,GPU-11aa", [2]),
        ("GPU-2,GPU-22cc", []),
        ("GPU-11aa,nonsense,GPU-11bb", [0]),
        ("GPU-11aa,1", [0]),
        ("1,GPU-11aa", [1]),
        ("GPU-11aa,", [0]),
        ("MIG-11aa", []),
    ],
)
def test_visible_devices_are_chosen_as_cuda_does(
    visible: "str | None", expected: list[int]
) -> None:
    chosen = simstate.visible_devices(DEVICES, visible)
    assert [DEVICES.index(device) for device in chosen] == expected


NUMBERS = st.one_of(
    st.integers(0, 10**6), st.decimals(0, 999, places=2, allow_nan=False)
)


@given(
    NUMBERS,
    st.sampled_from(["B", "kB", "KiB", "MiB", "mib", "GB", "TB", "TiB", "k", "M", "X"]),
)
def test_sizes_are_read_as_everywhere_else(number: Any, unit: str) -> None:
    text = f"{number} {unit}"
    try:
        expected = parse_size(text)
    except UnitError:
        with pytest.raises(ValueError, match="is not a size"):
            simsizes.parse_size(text)
    else:
        assert simsizes.parse_size(text) == expected


@pytest.mark.parametrize("size", [1.5, None, True, b"1GiB"])
def test_a_size_that_is_neither_number_nor_text_is_refused(size: Any) -> None:
    with pytest.raises(TypeError, match="number of bytes"):
        simsizes.parse_size(size)


@pytest.mark.parametrize("size", [-1, "-1GiB", "", "GiB", "12"])
def test_a_size_that_cannot_be_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="size"):
        simsizes.parse_size(size)


NOTEBOOK = ROOT / "jupyterhub_gpuworkshop" / "notebook"


@pytest.mark.parametrize("path", sorted(NOTEBOOK.glob("*.py")), ids=lambda p: p.name)
def test_what_runs_in_kernels_needs_the_standard_library_alone(path: Path) -> None:
    siblings = {p.stem for p in NOTEBOOK.glob("*.py")}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots = {alias.name.partition(".")[0] for alias in node.names}
            assert roots <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            known = siblings if node.level == 1 else sys.stdlib_module_names
            assert module in known


def test_what_runs_in_kernels_is_python_3_8() -> None:
    program = (
        "import sys\nfor path in sys.argv[1:]:\n"
        "    compile(open(path, encoding='utf-8').read(), path, 'exec')"
    )
    files = [str(p) for p in NOTEBOOK.glob("*.py")]
    done = subprocess.run(  # noqa: S603 - our own program
        [python38_or_skip(), "-c", program, *files], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == 0


FORK = """
weights = simcuda.allocate('3GiB')
ready, write_end = os.pipe()
child = os.fork()
if not child:
    weights.free()
    own = simcuda.allocate('256MiB')
    os.write(write_end, json.dumps(simcuda.memory_info()).encode())
    signal.pause()
"""

GREEDY = """
held = []
simcuda.device_count()
def take_all():
    try:
        while True:
            held.append(simcuda.allocate('64MiB'))
    except simcuda.OutOfMemoryError:
        return len(held)
"""

CHURN = """
errors = []
def take_and_drop():
    try:
        for _ in range(40):
            cycle = [simcuda.allocate('16MiB')]
            cycle.append(cycle)
            with simcuda.allocate('16MiB', device=1):
                simcuda.compute(0)
    except BaseException as error:
        errors.append(repr(error))
def churn():
    gc.set_threshold(1)
    threads = [threading.Thread(target=take_and_drop) for _ in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    gc.collect()
    return errors
"""

FORGE = """
import binascii
old, path = {name!r}, {path!r}
body = {content!r}.partition(b'\\n')[2]
body = body.replace(old.encode(), os.path.basename(path).encode())
open(path, 'wb').write(b'%08x\\n' % binascii.crc32(body) + body)
"""
