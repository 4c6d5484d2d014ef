"""`gpuworkshop demo`: a GPU workshop on one machine, without a GPU.

A real JupyterHub with a real proxy, real JupyterLab servers, the GPU service and robot
attendees, in one temporary folder that is gone with it.
"""

import importlib.util
import sys

from jupyterhub_gpuworkshop.core.errors import DemoError

from .options import DemoOptions

_NEEDED = ("aiohttp", "configurable_http_proxy", "ipykernel", "jupyterlab")


def run(options: DemoOptions) -> int:
    """Run the demo until it is told to end.

    Returns:
        0 where it was told to end; 1 where it could not go on, and stderr says why.
    """
    if sys.platform != "linux":
        _say("The demo needs Linux: it reads /proc to see which process is whose.")
        return 1
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        _say(
            f"The demo needs what is not installed here: {', '.join(missing)}. Install "
            'it with: pip install "jupyterhub-gpuworkshop[demo]"'
        )
        return 1
    # Only now: this imports what has just been looked for.
    from .director import direct

    try:
        return direct(options)
    except DemoError as error:
        _say(str(error))
        return 1


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
