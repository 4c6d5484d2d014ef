"""PyTorch, TensorFlow and ONNX Runtime as far as the import hook touches them."""

from collections.abc import Mapping
from pathlib import Path

_TORCH = {
    "torch/__init__.py": "from torch import _C, cuda\n",
    "torch/_C.py": """
calls, fractions, initialised = [], {}, []
def _cuda_setMemoryFraction(fraction, device):
    from torch import cuda
    assert initialised, "CUDA is not initialised"
    calls.append((fraction, device))
    cuda.set_device(device)  # as older versions do
""",
    "torch/cuda/__init__.py": """
from torch import _C
_queued_calls, _devices, _current = [], 2, [0]
def _lazy_call(call):
    if _C.initialised:
        call()
    else:
        _queued_calls.append(call)
def init():
    _C.initialised.append(True)
    for call in _queued_calls:
        call()
def device_count():
    return _devices
def current_device():
    return _current[0]
def set_device(device):
    _current[0] = device
""",
}
_TENSORFLOW = {
    "tensorflow/__init__.py": "import tensorflow.python.eager.context\n",
    "tensorflow/python/__init__.py": "",
    "tensorflow/python/eager/__init__.py": "",
    "tensorflow/python/eager/context.py": """
from types import SimpleNamespace
def options(fraction=0.0, virtual_devices=()):
    return SimpleNamespace(
        per_process_gpu_memory_fraction=fraction,
        experimental=SimpleNamespace(virtual_devices=list(virtual_devices)),
    )
class Context:
    def __init__(self, computed=None, configured=None):
        self._computed = computed or options()
        self._config = configured and SimpleNamespace(gpu_options=configured)
    def _compute_gpu_options(self):
        return self._computed
""",
}
_ONNXRUNTIME = {
    "onnxruntime/__init__.py": (
        "from .capi.onnxruntime_inference_collection import InferenceSession\n"
    ),
    "onnxruntime/capi/__init__.py": "",
    "onnxruntime/capi/onnxruntime_inference_collection.py": """
def check_and_normalize_provider_args(providers, provider_options, available):
    if providers is None:
        return [], []
    if provider_options is None:
        pairs = [p if isinstance(p, tuple) else (p, {}) for p in providers]
    else:
        pairs = list(zip(providers, provider_options))
    return [n for n, _ in pairs], [
        {str(k): str(v) for k, v in o.items()} for _, o in pairs
    ]
class InferenceSession:
    def __init__(self, model, options=None, providers=None, provider_options=None):
        self.set_providers(providers, provider_options)
    def set_providers(self, providers=None, provider_options=None):
        self.given = check_and_normalize_provider_args(providers, provider_options, [])
""",
}


def write_frameworks(folder: Path, changes: Mapping[str, str] | None = None) -> Path:
    """Write all three packages; changes add files, or replace them."""
    packages = {**_TORCH, **_TENSORFLOW, **_ONNXRUNTIME}
    for name, text in {**packages, **(changes or {})}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder
