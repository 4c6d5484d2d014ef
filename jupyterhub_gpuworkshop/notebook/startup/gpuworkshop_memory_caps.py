"""Soft caps for frameworks that read none: PyTorch, TensorFlow, ONNX Runtime.

Owns what happens right after `torch.cuda`, TensorFlow's eager context, ONNX Runtime's
sessions or IPython's shell are imported. It imports none of them, and costs next to
nothing until then. No error here reaches the framework: it is told in the log (logger
``gpuworkshop``, at DEBUG), or on stderr where GPUWORKSHOP_DEBUG is set.

The cap is GPUWORKSHOP_MEMORY_FRACTION, a part of the device's memory, and the same in
bytes GPUWORKSHOP_MEMORY_CAP_BYTES. It is soft: each process counts alone, and whoever
owns the process can undo it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing is slow to import

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Callable, Sequence

    Hook = Callable[[ModuleType], None]

FRACTION = "GPUWORKSHOP_MEMORY_FRACTION"
CAP = "GPUWORKSHOP_MEMORY_CAP_BYTES"
LIMIT = "GPUWORKSHOP_MEMORY_LIMIT_BYTES"


def install() -> None:
    """Prepare the hooks that this environment asks for; a second call does nothing."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    hooks: dict[str, Hook] = {}
    if os.environ.get(FRACTION):
        hooks["torch.cuda"] = _cap_torch
        hooks["tensorflow.python.eager.context"] = _cap_tensorflow
    if os.environ.get(CAP):
        hooks["onnxruntime.capi.onnxruntime_inference_collection"] = _cap_onnxruntime
    if os.environ.get(LIMIT):
        # ipykernel's shell shows its errors without its parent's help.
        hooks["IPython.core.interactiveshell"] = _explain_in_ipython
        hooks["ipykernel.zmqshell"] = _explain_in_a_kernel
    finder = _Finder(hooks)
    for name in [name for name in hooks if name in sys.modules]:
        finder.run(name, sys.modules[name])
    if finder.pending:
        sys.meta_path.insert(0, finder)


def tell(sentence: str) -> None:
    """Tell whoever looks for the cause, and nobody else."""
    try:
        if os.environ.get("GPUWORKSHOP_DEBUG"):
            sys.stderr.write(f"gpuworkshop: {sentence}\n")
        else:
            import logging

            logging.getLogger("gpuworkshop").debug("%s", sentence)
    except Exception:  # noqa: S110  # there is nobody left to tell
        pass


class _Finder:
    """Runs a hook after the import of each module it waits for, once.

    It stays in sys.meta_path when all are done: taken out while another thread walks
    along that list, it would make that thread miss the finder behind it.
    """

    def __init__(self, hooks: dict[str, Hook]) -> None:
        self.pending = dict(hooks)

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return what the finders behind this one find, with the hook added."""
        if name not in self.pending:
            return None
        try:
            spec = self._search(name, path, target)
            if spec is not None:
                self._add_hook(name, spec)
            return spec
        except Exception as error:
            # Python goes on to the next finder, which raises it again if it is its own.
            tell(f"{name} is not capped: {error!r}")
            return None

    def run(self, name: str, module: ModuleType) -> None:
        """Run the hook of a module that has been imported."""
        hook = self.pending.pop(name, None)
        if hook is None:
            return
        try:
            hook(module)
        except Exception as error:
            tell(f"{name} is left as it is: {error!r}")

    def _search(self, name: str, path: Any, target: Any) -> ModuleSpec | None:
        finders = list(sys.meta_path)
        behind = finders[finders.index(self) + 1 :] if self in finders else finders
        for finder in behind:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec and find_spec(name, path, target)
            if spec is not None:
                return spec
        return None

    def _add_hook(self, name: str, spec: ModuleSpec) -> None:
        loader: Any = spec.loader
        if isinstance(loader, type):  # frozen programs: it serves all their modules
            raise TypeError(f"{loader.__name__} is a class")
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if module.__name__ != name:  # a zip file's modules share one loader
                execute(module)
                return
            vars(loader).pop("exec_module", None)
            execute(module)
            self.run(name, module)

        # On the loader at hand: a loader of our own would hide what else it can do.
        loader.exec_module = exec_module


def _fraction() -> float | None:
    text = os.environ.get(FRACTION, "")
    try:
        fraction = float(text)
    except ValueError:
        fraction = -1.0
    if 0 < fraction <= 1:
        return fraction
    tell(f"{FRACTION} is {text!r}, not a part between 0 and 1: nothing is capped")
    return None


def _cap_torch(cuda: Any) -> None:
    """Have PyTorch set the cap when it initialises CUDA, or now if it has.

    To set it opens a CUDA context, which is why it waits.
    """
    fraction = _fraction()
    if fraction is None:
        return
    cap = fraction

    def set_cap() -> None:
        # What is raised here would break the initialisation of CUDA.
        try:
            _set_torch_cap(cuda, cap)
        except Exception as error:
            tell(f"PyTorch is not capped: {error!r}")

    cuda._lazy_call(set_cap)


def _set_torch_cap(cuda: Any, fraction: float) -> None:
    compiled = sys.modules["torch._C"]
    current = cuda.current_device()
    set_fraction = getattr(compiled, "_cuda_setMemoryFraction", None)
    get_fraction = getattr(compiled, "_cuda_getMemoryFraction", None)
    try:
        for device in range(cuda.device_count()):
            if get_fraction is not None and get_fraction(device) <= fraction:
                continue  # PYTORCH_CUDA_ALLOC_CONF says less
            if set_fraction is not None:
                set_fraction(fraction, device)
            else:
                cuda.set_per_process_memory_fraction(fraction, device)
    finally:
        # Older versions leave the device that was set last the current one.
        if cuda.current_device() != current:
            cuda.set_device(current)


def _cap_tensorflow(context: Any) -> None:
    """Add the cap to the GPU options that TensorFlow computes when it starts."""
    fraction = _fraction()
    if fraction is None:
        return
    cap = fraction
    compute = context.Context._compute_gpu_options

    def _compute_gpu_options(self: Any, *args: Any, **kwargs: Any) -> Any:
        options = compute(self, *args, **kwargs)
        try:
            _set_tensorflow_cap(options, self._config, cap)
        except Exception as error:
            tell(f"TensorFlow is not capped: {error!r}")
        return options

    context.Context._compute_gpu_options = _compute_gpu_options


def _set_tensorflow_cap(options: Any, config: Any, fraction: float) -> None:
    said = [options] if config is None else [options, config.gpu_options]
    if any(x.experimental.virtual_devices for x in said):
        # TensorFlow refuses to start with both.
        tell("TensorFlow is not capped: its logical devices have limits of their own")
        return
    theirs = [x.per_process_gpu_memory_fraction for x in said]
    options.per_process_gpu_memory_fraction = min(
        [fraction, *(x for x in theirs if x > 0)]
    )


def _cap_onnxruntime(collection: Any) -> None:
    """Add the cap to the options of each session that names the CUDA provider.

    A session that names no provider is left as it is: to name all that are there, with
    an option for one, would make ONNX Runtime load what it passes by otherwise.
    """
    text = os.environ.get(CAP, "")
    if not (text.isdigit() and int(text)):
        tell(f"{CAP} is {text!r}, not a number of bytes: ONNX Runtime is not capped")
        return
    cap = int(text)
    normalise = collection.check_and_normalize_provider_args

    def check_and_normalize_provider_args(*args: Any, **kwargs: Any) -> Any:
        normal = normalise(*args, **kwargs)
        try:
            names, options = normal
            _set_onnxruntime_cap(names, options, cap)
        except Exception as error:
            tell(f"ONNX Runtime is not capped: {error!r}")
        return normal

    collection.check_and_normalize_provider_args = check_and_normalize_provider_args


def _set_onnxruntime_cap(names: Any, options: Any, cap: int) -> None:
    if not names:
        tell("ONNX Runtime is not capped: the session names no providers")
    for name, its_options in zip(names, options):
        if name == "CUDAExecutionProvider":
            theirs = its_options.get("gpu_mem_limit", "")
            asked = int(theirs) if theirs.isdigit() else 0
            its_options["gpu_mem_limit"] = str(min(cap, asked or cap))


def _explain_in_ipython(module: Any) -> None:
    _explain(module.InteractiveShell)


def _explain_in_a_kernel(module: Any) -> None:
    _explain(module.ZMQInteractiveShell)


def _explain(shell: Any) -> None:
    """End the traceback of an out-of-memory error with what to do about it."""
    show = vars(shell).get("_showtraceback")
    if show is None:
        return  # inherited, and seen to there

    def _showtraceback(self: Any, etype: Any, evalue: Any, stb: Any) -> Any:
        try:
            import gpuworkshop_out_of_memory

            stb = gpuworkshop_out_of_memory.explained(evalue, stb)
        except Exception as error:
            tell(f"an error is shown as it is: {error!r}")
        return show(self, etype, evalue, stb)

    shell._showtraceback = _showtraceback
