"""The documentation: Sphinx with MyST, in the four folders of Diataxis.

Built offline: nothing is fetched from elsewhere.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import click
import generate

from jupyterhub_gpuworkshop import __version__
from jupyterhub_gpuworkshop.cli import main as command_line

project = "jupyterhub-gpuworkshop"
author = "The jupyterhub-gpuworkshop developers"
project_copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "autodoc_traits",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]
root_doc = "index"
exclude_patterns = ["_build", "reference/generated"]
# Straight quotes in commands and keys can be copied.
smartquotes = False
myst_heading_anchors = 3
# autodoc_traits extends the documenters that Sphinx 9 has replaced.
autodoc_use_legacy_class_based = True

# Intersphinx stays off: it would need the network.

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path: list[str] = []
html_show_sourcelink = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = "$ "

generate.write_all()

# `--help` shows defaults by a setting of the group's, which sphinx-click does not read.
for command in command_line.commands.values():
    for option in command.params:
        if isinstance(option, click.Option) and not option.is_flag:
            option.show_default = isinstance(option.default, (int, str))


def setup(app: Any) -> None:
    """Adapt what autodoc takes from the code."""
    app.connect("autodoc-process-signature", _leave_out_signature)
    app.connect("autodoc-process-docstring", _mark_examples)


def _leave_out_signature(*_: Any) -> tuple[str, None]:
    """Nobody calls these classes: they are configured."""
    return "", None


def _mark_examples(
    app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Put the ``::`` that Sphinx wants before an indented example."""
    marked: list[str] = []
    in_example = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not in_example:
            before = next((x for x in reversed(marked) if x.strip()), "")
            if not before.rstrip().endswith("::"):
                marked += ["::", ""]
        if line.strip():
            in_example = indented
        marked.append(line)
    lines[:] = marked
