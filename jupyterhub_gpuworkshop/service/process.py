"""What belongs to the service's process as such: its descriptors, and its end."""

import os
import resource
import threading

_EXIT_WITHIN_SECONDS = 1.5


def allow_many_connections() -> None:
    """Take all the descriptors that there are: the soft limit is often 1024.

    A room needs that many, and whoever logs in on this host can connect idly.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def exit_whatever_happens() -> None:
    """End the process soon, even where a thread hangs in a driver or a resolver.

    The interpreter would wait for the threads of the loop's executor.
    """
    timer = threading.Timer(_EXIT_WITHIN_SECONDS, os._exit, (0,))
    timer.daemon = True
    timer.start()
