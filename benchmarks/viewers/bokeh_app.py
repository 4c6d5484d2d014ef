"""`python -m benchmarks.viewers.bokeh_app PORT`: the picture as a Bokeh application.

Every session has a document of its own: two figures, memory and utilisation of all
devices over an hour, to which a periodic callback adds a row each second, from one
sampler that all sessions share.
"""

import sys
import time

import numpy
import pynvml
from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.models import ColumnDataSource
from bokeh.palettes import Category10
from bokeh.plotting import figure
from bokeh.server.server import Server
from tornado.ioloop import PeriodicCallback

_HOUR_SECONDS = 3600
_TICK_MILLISECONDS = 1000
_COLOURS = Category10[10]

Row = dict[str, float]


class Sampler:
    """Reads all devices once a second, and keeps an hour of it."""

    def __init__(self) -> None:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        now = self._read()
        self.rows = [
            {**now, "time": now["time"] - 1000.0 * (_HOUR_SECONDS - second)}
            for second in range(_HOUR_SECONDS)
        ]

    def sample(self) -> None:
        """Take a sample."""
        self.rows.append(self._read())
        del self.rows[0]

    def draw(self, document: Document) -> None:
        """Make the document of a session."""
        columns = {
            key: numpy.array([row[key] for row in self.rows]) for key in self.rows[0]
        }
        columns["sent"] = columns["time"]
        source = ColumnDataSource(columns)
        for kind in ("memory", "utilisation"):
            plot = figure(x_axis_type="datetime", height=180, title=kind)
            for number in range(len(self._handles)):
                colour = _COLOURS[number % len(_COLOURS)]
                plot.line("time", f"{kind}{number}", source=source, color=colour)
            document.add_root(plot)

        def add() -> None:
            row = {key: [value] for key, value in self.rows[-1].items()}
            source.stream({**row, "sent": [1000 * time.time()]}, rollover=_HOUR_SECONDS)

        document.add_periodic_callback(add, _TICK_MILLISECONDS)

    def _read(self) -> Row:
        row = {"time": 1000 * time.time()}
        for number, handle in enumerate(self._handles):
            row[f"memory{number}"] = float(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
            rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
            row[f"utilisation{number}"] = float(rates.gpu)
        return row


def _main(port: int) -> None:
    sampler = Sampler()
    server = Server(
        {"/room": Application(FunctionHandler(sampler.draw))},
        address="127.0.0.1",
        port=port,
        allow_websocket_origin=[f"127.0.0.1:{port}"],
        include_headers=[],
        include_cookies=[],
    )
    PeriodicCallback(sampler.sample, _TICK_MILLISECONDS).start()
    server.start()
    server.io_loop.start()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
