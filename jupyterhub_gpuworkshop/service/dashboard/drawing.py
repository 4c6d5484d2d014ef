"""The plot of a device's last hour, as a Bokeh document without data.

Runs as a short-lived process of its own, and is the only importer of Bokeh: that
costs a second of a core and 45 MB, which the service would never give back. Owns how
the plot looks; its data is set in the browser, by `static/plot.js`, in the columns
that are named here.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bokeh.embed import json_item
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    DatetimeTicker,
    DatetimeTickFormatter,
    FixedTicker,
    HoverTool,
    LinearAxis,
    Range1d,
)
from bokeh.plotting import figure

from .words import say

SOURCE = "hour"
COLUMNS = ("at", "memory", "area", "busy", "memory_said", "busy_said", "felt")
_HEIGHT_PIXELS = 180
_HOUR_MILLISECONDS = 3_600_000
_CLOCK = "%H:%M"
_SMALL = "12px"
_ID_KEYS = ("id", "root_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The colours of a theme, which the colour-blind tell apart."""

    text: str
    grid: str
    memory: str
    busy: str


LOOKS = {
    "light": Look(text="#5c636a", grid="#dee2e6", memory="#0072b2", busy="#b75301"),
    "dark": Look(text="#a3a9af", grid="#495057", memory="#56b4e9", busy="#f9a04d"),
}


def device_plot(look: Look) -> figure:
    """Return a plot of one device: memory at the left, utilisation at the right.

    Nothing of it needs script of its own in a page whose policy allows none.

    Args:
        look: its colours.
    """
    source = ColumnDataSource({name: [] for name in COLUMNS}, name=SOURCE)
    plot = figure(
        height=_HEIGHT_PIXELS,
        sizing_mode="stretch_width",
        x_axis_type="datetime",
        x_range=Range1d(start=0, end=_HOUR_MILLISECONDS, name="times"),
        y_range=Range1d(start=0, end=1, name="memory"),
        tools="",
        toolbar_location=None,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        min_border_top=8,
        lod_threshold=None,
    )
    plot.extra_y_ranges = {"busy": Range1d(start=0, end=100)}
    plot.varea("at", 0, "area", source=source, fill_color=look.memory, fill_alpha=0.25)
    memory = plot.line(
        "at", "memory", source=source, line_color=look.memory, line_width=1.5
    )
    plot.line(
        "at",
        "busy",
        source=source,
        y_range_name="busy",
        line_color=look.busy,
        line_width=1.5,
        line_dash=[5, 2],
    )
    plot.add_layout(
        LinearAxis(y_range_name="busy", axis_label=say("plot.busy_axis")), "right"
    )
    plot.yaxis[0].axis_label = say("plot.memory_axis")
    plot.yaxis[0].ticker = BasicTicker(desired_num_ticks=4)
    plot.yaxis[1].ticker = FixedTicker(ticks=[0, 50, 100])
    _style(plot, look)
    plot.add_tools(
        HoverTool(
            renderers=[memory],
            mode="vline",
            line_policy="nearest",
            # Without labels: Bokeh's colour for them is hard to read.
            tooltips=[
                ("", text)
                for text in ("@at{%H:%M:%S}", "@memory_said", "@busy_said", "@felt")
            ],
            formatters={"@at": "datetime"},
        )
    )
    return plot


def _style(plot: figure, look: Look) -> None:
    plot.axis.axis_line_color = None
    plot.axis.minor_tick_line_color = None
    plot.axis.major_tick_line_color = look.grid
    plot.axis.major_label_text_color = look.text
    plot.axis.major_label_text_font_size = _SMALL
    plot.axis.axis_label_text_font_size = _SMALL
    plot.axis.axis_label_text_font_style = "normal"
    plot.yaxis[0].axis_label_text_color = look.memory
    plot.yaxis[1].axis_label_text_color = look.busy
    plot.xgrid.grid_line_color = None
    plot.ygrid.grid_line_color = look.grid
    plot.xaxis.ticker = DatetimeTicker(desired_num_ticks=3)
    plot.xaxis.formatter = DatetimeTickFormatter(
        seconds="%H:%M:%S",
        minsec="%H:%M:%S",
        minutes=_CLOCK,
        hourmin=_CLOCK,
        hours=_CLOCK,
        days="%d %b",
    )


def documents(theme: str, slots: int) -> Iterator[str]:
    """Make as many documents of one look as a page shows at once, each as JSON.

    No id is in two of them. They are drawn once, for Bokeh takes 0.1 s to do so.

    Args:
        theme: a key of `LOOKS`.
        slots: how many.
    """
    drawn = json_item(device_plot(LOOKS[theme]))
    for slot in range(slots):
        yield json.dumps(_with_own_ids(drawn, f"{theme}-{slot}"), allow_nan=False)


def _with_own_ids(value: Any, name: str) -> Any:
    """Return part of a document in which each id ends with a name."""
    if isinstance(value, dict):
        return {
            key: f"{x}-{name}"
            if key in _ID_KEYS and isinstance(x, str)
            else _with_own_ids(x, name)
            for key, x in value.items()
        }
    if isinstance(value, list | tuple):
        return [_with_own_ids(x, name) for x in value]
    return value


def main() -> None:
    """Write documents to stdout: one a line, one theme after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m jupyterhub_gpuworkshop.service.dashboard.drawing",
        description="Make the plots of the dashboard, for each theme in turn.",
    )
    parser.add_argument("slots", type=int, help="how many of each theme")
    parser.add_argument("theme", nargs="+", choices=tuple(LOOKS))
    options = parser.parse_args()
    for theme in options.theme:
        for line in documents(theme, options.slots):
            print(line)  # noqa: T201  whoever started this process reads it


if __name__ == "__main__":
    main()
