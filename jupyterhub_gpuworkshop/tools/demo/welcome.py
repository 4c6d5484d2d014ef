"""The notebook that a person finds in the demo's JupyterLab.

Owns its few cells: how to hold memory of a simulated GPU, and how to forget it.
"""

import json
from pathlib import Path
from typing import Any

_NAME = "try-it.ipynb"

_CELLS = (
    (
        "markdown",
        "# A share of a simulated GPU\n\n"
        "Your server has a lease on one of the demo's GPUs. Run the cells and watch "
        "the terminal in which the demo runs.",
    ),
    (
        "code",
        "from jupyterhub_gpuworkshop.notebook import simcuda\n\n"
        "free, total = simcuda.memory_info()\n"
        'print(f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free")',
    ),
    (
        "code",
        "# Hold memory. More than your share raises simcuda.OutOfMemoryError.\n"
        'weights = simcuda.allocate("1GiB")',
    ),
    (
        "code",
        "# Keep the GPU busy: meanwhile nobody takes the memory away.\n"
        "simcuda.compute(10)",
    ),
    (
        "markdown",
        "Now leave it alone, as one does for lunch. After the idle timeout the kernel "
        "is restarted and its memory is free for others.\n\n"
        "To give memory back yourself: `weights.free()`.",
    ),
)


def write_welcome(home: Path) -> None:
    """Put the notebook into an attendee's home, unless it is there."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / _NAME
    if not path.exists():
        path.write_text(json.dumps(notebook(_CELLS), indent=1))


def notebook(cells: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """Return a notebook of (cell type, source)."""
    code: dict[str, Any] = {"execution_count": None, "outputs": []}
    return {
        "cells": [
            {
                "id": f"cell-{number}",
                "cell_type": kind,
                "metadata": {},
                "source": source,
                **(code if kind == "code" else {}),
            }
            for number, (kind, source) in enumerate(cells)
        ],
        "metadata": {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
