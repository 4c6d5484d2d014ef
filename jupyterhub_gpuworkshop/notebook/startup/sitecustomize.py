"""Runs as every Python of a server with a GPU share starts, for it is on PYTHONPATH.

Owns two things: it installs what `gpuworkshop_memory_caps` does later, and then it
runs the sitecustomize that Python would have run without this one. It imports no
framework, and must never keep a Python from starting.

`python -I`, `-E` and `-S` pass it by.
"""

import os
import sys
from importlib.machinery import PathFinder


def _install() -> None:
    try:
        import gpuworkshop_memory_caps

        gpuworkshop_memory_caps.install()
    except Exception as error:
        if os.environ.get("GPUWORKSHOP_DEBUG") and sys.stderr is not None:
            sys.stderr.write(f"gpuworkshop: no memory caps here: {error!r}\n")


def _run_the_next() -> None:
    """Run the sitecustomize further down sys.path; its errors are Python's to tell."""
    folder = os.path.dirname(__file__)  # noqa: PTH120  # pathlib is slow to import
    after = sys.path[sys.path.index(folder) + 1 :] if folder in sys.path else sys.path
    spec = PathFinder.find_spec("sitecustomize", [x for x in after if x != folder])
    if spec is None or spec.loader is None:
        return
    from importlib.util import module_from_spec

    # Whoever imports sitecustomize from now on gets theirs.
    sys.modules["sitecustomize"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


_install()
_run_the_next()
