"""The import hook: what it does to a framework, and what it leaves alone."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.hub.memory_hook import FOLDER

from .fake_frameworks import write_frameworks
from .hooked_python import VERSIONS, find_python, python_or_skip, start, value_of

INIT = "import torch; torch.cuda.init(); value = torch._C.calls"
OPTIONS = """
from tensorflow.python.eager import context
def of(*given):
    options = context.Context(*given)._compute_gpu_options()
    return options.per_process_gpu_memory_fraction
"""


@pytest.fixture(params=["this Python", *VERSIONS])
def python(request: pytest.FixtureRequest) -> str:
    if request.param == "this Python":
        return sys.executable
    return python_or_skip(request.param)


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    return write_frameworks(tmp_path / "site")


# -- what it does


def test_pytorch_is_capped_on_each_device_when_it_initialises_cuda(python, fakes):
    code = (
        "import torch; value = [list(torch._C.calls)]; torch.cuda.init(); "
        "value += [torch._C.calls, torch.cuda.current_device()]"
    )
    calls = [[0.25, 0], [0.25, 1]]
    assert value_of(code, fakes, python=python) == [[], calls, 0]


def test_pytorch_is_capped_at_once_where_cuda_is_initialised(python, tmp_path):
    changes = {"torch/_C.py": "initialised = [True]\n"}
    site = write_frameworks(tmp_path / "site", changes)
    fallback = """
fractions = []
def set_per_process_memory_fraction(fraction, device):
    fractions.append((fraction, device))
"""
    with (site / "torch/cuda/__init__.py").open("a") as file:
        file.write(fallback)
    code = "import torch; value = torch.cuda.fractions"
    assert value_of(code, site, python=python) == [[0.25, 0], [0.25, 1]]


def test_a_smaller_fraction_that_pytorch_was_given_stays(tmp_path):
    site = write_frameworks(tmp_path / "site")
    with (site / "torch/_C.py").open("a") as file:
        file.write("def _cuda_getMemoryFraction(device): return [0.1, 1.0][device]\n")
    assert value_of(INIT, site) == [[0.25, 1]]


def test_tensorflow_gets_the_smallest_fraction_that_was_said(python, fakes):
    code = f"""{OPTIONS}
o = context.options
value = [of(), of(o(0.1)), of(o(0.9)), of(None, o(0.2)), of(None, o(0.8))]
"""
    assert value_of(code, fakes, python=python) == [0.25, 0.1, 0.25, 0.2, 0.25]


def test_tensorflows_logical_devices_are_not_given_a_fraction(fakes):
    # TensorFlow refuses to start with both.
    for given in ("o(0.0, [1])", "None, o(0.0, [1])"):
        code = f"{OPTIONS}\no = context.options\nprint(of({given}))"
        ended = start(code, fakes)
        assert ended.stdout == "0.0\n"
        assert "logical devices have limits of their own" in ended.stderr


CUDA = "CUDAExecutionProvider"


def test_onnx_runtime_sessions_on_a_gpu_get_the_cap(python, fakes):
    code = f"""
import onnxruntime
def given(*providers):
    return onnxruntime.InferenceSession("m", None, *providers).given
value = [given(["{CUDA}", "CPUExecutionProvider"]),
         given([("{CUDA}", {{"device_id": 1, "gpu_mem_limit": 100}})]),
         given([("{CUDA}", {{"gpu_mem_limit": 99999}})]),
         given(["CPUExecutionProvider", "{CUDA}"], [{{}}, {{}}]),
         given(["CPUExecutionProvider"])]
later = onnxruntime.InferenceSession("m", None, ["CPUExecutionProvider"])
later.set_providers(["{CUDA}"])
value.append(later.given)
"""
    assert value_of(code, fakes, python=python) == [
        [[CUDA, "CPUExecutionProvider"], [{"gpu_mem_limit": "4000"}, {}]],
        [[CUDA], [{"device_id": "1", "gpu_mem_limit": "100"}]],
        [[CUDA], [{"gpu_mem_limit": "4000"}]],
        [["CPUExecutionProvider", CUDA], [{}, {"gpu_mem_limit": "4000"}]],
        [["CPUExecutionProvider"], [{}]],
        [[CUDA], [{"gpu_mem_limit": "4000"}]],
    ]


def test_an_onnx_runtime_session_without_providers_is_left_alone_and_told(fakes):
    code = "import onnxruntime; print(onnxruntime.InferenceSession('m').given)"
    ended = start(code, fakes)
    assert ended.stdout == "([], [])\n"
    assert "not capped: the session names no providers" in ended.stderr


@pytest.mark.parametrize("cap", ["", "0", "-1", "4GiB"])
def test_without_a_number_of_bytes_onnx_runtime_is_not_capped(cap, fakes):
    code = "import onnxruntime; print(onnxruntime.InferenceSession("
    code += f"'m', None, ['{CUDA}']).given)"
    ended = start(code, fakes, GPUWORKSHOP_MEMORY_CAP_BYTES=cap)
    assert ended.stdout == f"(['{CUDA}'], [{{}}])\n"
    assert ("GPUWORKSHOP_MEMORY_CAP_BYTES is" in ended.stderr) == bool(cap)


def test_an_error_as_options_are_read_does_not_break_onnx_runtime(tmp_path):
    name = "onnxruntime/capi/onnxruntime_inference_collection.py"
    text = "def check_and_normalize_provider_args(*_): return 7\n"
    site = write_frameworks(
        tmp_path / "site", {name: text, "onnxruntime/__init__.py": ""}
    )
    code = "from onnxruntime.capi import onnxruntime_inference_collection as o\n"
    code += "print(o.check_and_normalize_provider_args())"
    ended = start(code, site)
    assert (ended.returncode, ended.stdout) == (0, "7\n")
    assert "gpuworkshop: ONNX Runtime is not capped" in ended.stderr


def test_an_import_in_a_thread_is_capped(fakes):
    code = """
import threading
def load():
    import torch
threads = [threading.Thread(target=load) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
import torch
torch.cuda.init()
value = torch._C.calls
"""
    assert value_of(code, fakes) == [[0.25, 0], [0.25, 1]]


def test_a_forked_child_and_a_child_of_another_python_are_capped(python, fakes):
    forked = """
import os, torch
reader, writer = os.pipe()
if not os.fork():
    torch.cuda.init()
    os.write(writer, repr(torch._C.calls).encode())
    os._exit(0)
os.wait()
value = eval(os.read(reader, 1000))
"""
    # Python 3.12 warns of a fork beside threads; there are none here.
    assert value_of(forked, fakes, python=python) == [[0.25, 0], [0.25, 1]]
    other = find_python("3.8") or sys.executable
    child = f"""
import subprocess
program = "import torch; torch.cuda.init(); print(torch._C.calls)"
value = eval(subprocess.check_output([{other!r}, "-c", program]))
"""
    assert value_of(child, fakes, python=python) == [[0.25, 0], [0.25, 1]]


def test_a_spawned_worker_is_capped(fakes, tmp_path):
    (tmp_path / "work.py").write_text(
        "def work(_):\n    import torch; torch.cuda.init(); return torch._C.calls"
    )
    code = """
import multiprocessing, work
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        value = pool.map(work.work, [0])[0]
"""
    assert value_of(code, fakes, tmp_path) == [[0.25, 0], [0.25, 1]]


# -- what it leaves alone


def test_nothing_is_imported_at_the_start(python):
    ended = start("import sys; print(sorted(sys.modules))", python=python)
    assert ended.stderr == ""
    loaded = set(ast.literal_eval(ended.stdout))
    assert "gpuworkshop_memory_caps" in loaded
    heavy = {
        "torch",
        "tensorflow",
        "IPython",
        "logging",
        "pathlib",
        "typing",
        "threading",
    }
    bare = start(
        "import sys; print(sorted(sys.modules))", python=python, options=("-E",)
    )
    assert heavy & loaded <= set(ast.literal_eval(bare.stdout))


def test_looking_for_a_framework_without_importing_it_spends_nothing(fakes):
    code = f"""
import importlib.util
for name in ("torch", "torch.cuda", "tensorflow.python.eager.context"):
    assert importlib.util.find_spec(name) is not None
{INIT}
"""
    assert value_of(code, fakes) == [[0.25, 0], [0.25, 1]]


def test_a_module_keeps_its_loader_and_its_source(fakes):
    code = """
import inspect, importlib.machinery, torch
loader = torch.cuda.__spec__.loader
value = [type(loader) is importlib.machinery.SourceFileLoader, sorted(vars(loader)),
         "def _lazy_call" in inspect.getsource(torch.cuda)]
"""
    assert value_of(code, fakes) == [True, ["name", "path"], True]


def test_a_class_that_loads_many_modules_is_left_alone_and_told(python):
    code = """
import sys
from importlib.machinery import ModuleSpec
class Both:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return ModuleSpec(name, cls, is_package=True) if name[:5] == "torch" else None
    @classmethod
    def create_module(cls, spec):
        return None
    @classmethod
    def exec_module(cls, module):
        module.here = True
sys.meta_path.append(Both)
import torch.cuda, torch.other
print(torch.cuda.here, torch.other.here)
"""
    ended = start(code, python=python)
    assert ended.stdout == "True True\n", ended.stderr
    assert "torch.cuda is not capped: TypeError('Both is a class')" in ended.stderr


@pytest.mark.parametrize("name", ["torch", "tensorflow"])
def test_a_framework_that_is_not_there_is_missing_as_ever(name, tmp_path, python):
    ended = start(f"import {name}.cuda", tmp_path, python=python)
    assert f"ModuleNotFoundError: No module named '{name}'" in ended.stderr
    assert "gpuworkshop" not in ended.stderr


def test_a_framework_whose_import_failed_is_capped_the_next_time(tmp_path):
    site = write_frameworks(tmp_path / "site")
    module = site / "torch/cuda/__init__.py"
    text = "import os\nif os.environ.pop('BROKEN', ''): raise OSError('no libcuda')\n"
    module.write_text(text + module.read_text())
    code = f"""
try:
    import torch
except OSError as error:
    assert str(error) == "no libcuda"
{INIT}
"""
    assert value_of(code, site, BROKEN="1") == [[0.25, 0], [0.25, 1]]


BROKEN = {
    "no _lazy_call": {"torch/cuda/__init__.py": "def init(): pass\n"},
    "no Context": {"tensorflow/python/eager/context.py": "x = 1\n"},
    "no _compute_gpu_options": {
        "tensorflow/python/eager/context.py": "class Context: pass\n"
    },
    "no check_and_normalize_provider_args": {
        "onnxruntime/capi/onnxruntime_inference_collection.py": (
            "class InferenceSession: pass\n"
        )
    },
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_a_version_without_what_is_expected_works_and_is_told(
    changes, tmp_path, python
):
    site = write_frameworks(tmp_path / "site", changes)
    code = "import torch, tensorflow, onnxruntime; torch.cuda.init(); print('works')"
    ended = start(code, site, python=python)
    assert (ended.returncode, ended.stdout) == (0, "works\n")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("gpuworkshop: ")
    assert "is left as it is: AttributeError" in line
    quiet = start(code, site, python=python, GPUWORKSHOP_DEBUG="")
    assert (quiet.stdout, quiet.stderr) == ("works\n", "")
    logged = f"import logging; logging.basicConfig(level=10, format='%(name)s')\n{code}"
    quiet = start(logged, site, python=python, GPUWORKSHOP_DEBUG="")
    assert quiet.stderr == "gpuworkshop\n"


def test_an_error_as_the_cap_is_set_does_not_break_cuda(tmp_path, python):
    changes = {"torch/_C.py": "initialised = []\n_cuda_setMemoryFraction = None\n"}
    site = write_frameworks(tmp_path / "site", changes)
    code = "import torch; torch.cuda.init(); print('works')"
    ended = start(code, site, python=python)
    assert (ended.returncode, ended.stdout) == (0, "works\n")
    assert "gpuworkshop: PyTorch is not capped" in ended.stderr


def test_an_error_as_the_options_are_computed_does_not_break_tensorflow(fakes):
    code = (
        f"{OPTIONS}\ncontext.Context(computed=7)._compute_gpu_options(); print('works')"
    )
    ended = start(code, fakes)
    assert (ended.returncode, ended.stdout) == (0, "works\n")
    assert "gpuworkshop: TensorFlow is not capped" in ended.stderr


@pytest.mark.parametrize("fraction", ["", "0", "-1", "1.5", "nan", "a fifth"])
def test_without_a_fraction_that_makes_sense_nothing_is_capped(fraction, fakes):
    ended = start(
        f"{INIT}; {OPTIONS}\nprint(value, of())".replace("; \n", "\n"),
        fakes,
        GPUWORKSHOP_MEMORY_FRACTION=fraction,
    )
    assert ended.stdout == "[] 0.0\n"
    told = f"GPUWORKSHOP_MEMORY_FRACTION is {fraction!r}"
    assert ended.stderr.count(told) == (2 if fraction else 0)


@pytest.mark.parametrize("option", ["-I", "-E", "-S"])
def test_these_options_pass_the_hook_by(option, python):
    code = "import sys; print('gpuworkshop_memory_caps' in sys.modules)"
    assert start(code, python=python, options=(option,)).stdout == "False\n"
    assert start(code, python=python).stdout == "True\n"


def test_finders_in_front_and_behind_are_asked_as_ever(fakes):
    code = f"""
import importlib.util, sys
asked = []
class Finder:
    def __init__(self, place): self.place = place
    def find_spec(self, name, path=None, target=None):
        if name == "torch.cuda" and self.place not in asked:
            asked.append(self.place)
            return importlib.util.find_spec(name)  # as wrapt's does
sys.meta_path.insert(0, Finder("in front"))
sys.meta_path.insert(2, Finder("behind"))
{INIT}
value = [value, asked]
"""
    expected = [[[0.25, 0], [0.25, 1]], ["in front", "behind"]]
    assert value_of(code, fakes) == expected


# -- the sitecustomize that was there before


def sitecustomize(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(text, "utf-8")
    return folder


def test_the_next_sitecustomize_runs_once_and_under_its_name(tmp_path, python):
    first = sitecustomize(
        tmp_path / "1", "import sys\nsys.ran = [*getattr(sys, 'ran', []), __file__]\n"
    )
    second = sitecustomize(tmp_path / "2", "raise SystemExit(3)\n")
    code = "import sys, sitecustomize; value = [sys.ran, sitecustomize.__file__]"
    ours = str(first / "sitecustomize.py")
    assert value_of(code, first, second, python=python) == [[ours], ours]
    # As does a copy of the hook that stands on the path as well.
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    assert value_of(code, copy, first, second, python=python) == [[ours], ours]
    code = (
        "import sys; value = [type(x).__name__ for x in sys.meta_path].count('_Finder')"
    )
    assert value_of(code, copy, first, python=python) == 1


def test_the_next_sitecustomize_fails_as_it_would_have(tmp_path, python, fakes):
    broken = sitecustomize(tmp_path / "1", "raise ValueError('theirs')\n")
    ended = start(INIT + "; print(value)", broken, fakes, python=python)
    without = start("", broken, python=python, hook=broken)
    assert ended.stdout == "[(0.25, 0), (0.25, 1)]\n"
    assert ended.stderr == without.stderr
    assert "ValueError: theirs" in ended.stderr


def test_a_sitecustomize_in_front_is_pythons_choice(tmp_path, python):
    first = sitecustomize(tmp_path / "1", "import sys\nsys.ran = 'theirs'\n")
    code = "import sys; value = [sys.ran, 'gpuworkshop_memory_caps' in sys.modules]"
    assert value_of(code, FOLDER, hook=first, python=python) == ["theirs", False]


def test_a_hook_that_cannot_start_keeps_no_python_from_starting(tmp_path, python):
    folder = tmp_path / "hook"
    folder.mkdir()
    shutil.copy(FOLDER / "sitecustomize.py", folder)
    first = sitecustomize(tmp_path / "1", "print('theirs')\n")
    for text in (None, "raise OSError(1)", "def install(:", "install = None"):
        if text is not None:
            (folder / "gpuworkshop_memory_caps.py").write_text(text)
        ended = start("print('works')", first, python=python, hook=folder)
        assert (ended.returncode, ended.stdout) == (0, "theirs\nworks\n")
        assert ended.stderr.startswith("gpuworkshop: no memory caps here")
        quiet = start("", hook=folder, python=python, GPUWORKSHOP_DEBUG="")
        assert quiet.stderr == ""


def test_a_python_too_old_for_caps_starts_without_a_word(tmp_path):
    first = sitecustomize(tmp_path / "1", "print('theirs')\n")
    old = python_or_skip("3.6")
    ended = start("print('works')", first, python=old, GPUWORKSHOP_DEBUG="")
    assert (ended.stdout, ended.stderr) == ("theirs\nworks\n", "")


def test_the_folder_makes_nothing_else_importable():
    assert {x.name for x in FOLDER.iterdir()} - {"__pycache__"} == {
        "sitecustomize.py",
        "gpuworkshop_memory_caps.py",
        "gpuworkshop_out_of_memory.py",
        "gpuworkshop_jupyter",
    }
    settings = {x.name for x in (FOLDER / "gpuworkshop_jupyter").glob("[!_]*")}
    assert settings == {"jupyter_server_config.py", "lab_button.py"}
    for module in FOLDER.glob("*.py"):
        assert "import jupyterhub_gpuworkshop" not in module.read_text()


def test_the_hook_travels_in_the_wheel(tmp_path):
    root = FOLDER.parent.parent.parent
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(
        root / "jupyterhub_gpuworkshop",
        source / "jupyterhub_gpuworkshop",
        ignore=ignore,
    )
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    code = "from setuptools import setup; setup()"
    subprocess.run(  # noqa: S603 - this Python, and a program of the test
        [sys.executable, "-c", code, "-q", "build"],
        cwd=source,
        check=True,
        capture_output=True,
    )
    built = source / "build/lib/jupyterhub_gpuworkshop/notebook/startup"
    ours, theirs = (
        {str(x.relative_to(folder)) for x in folder.rglob("*.py")}
        for folder in (FOLDER, built)
    )
    assert ours == theirs
