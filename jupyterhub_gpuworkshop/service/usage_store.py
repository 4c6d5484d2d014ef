"""The usage of devices in the history's file.

Owns its table, and what is read of it, written to it and pruned. It names devices and
nobody: there is nothing in it to forget. `Store` alone calls this, within its
transactions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    or_,
    select,
)
from sqlalchemy.dialects.sqlite import insert

from .usage_rows import (
    MERGED,
    MINUTE_SECONDS,
    MINUTES_KEPT_SECONDS,
    QUARTER_SECONDS,
    Values,
)

_NAN = float("nan")


def usage_table(metadata: MetaData) -> Table:
    """Return the table, as part of a schema."""
    return Table(
        "usage",
        metadata,
        Column("step_seconds", Integer, primary_key=True),
        Column("at", Integer, primary_key=True),
        Column("device", String, primary_key=True),
        *(Column(name, Float) for name in MERGED),
        sqlite_with_rowid=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What one device did in one interval.

    Attributes:
        step_seconds: how long the interval is: a minute, or a quarter of an hour.
        at: when it began, in seconds since the epoch.
        device: the UUID.
        values: in the order of `MERGED`; NaN where unknown.
    """

    step_seconds: int
    at: int
    device: str
    values: Values


def load_usage(connection: Connection, table: Table, now: float) -> list[UsageRow]:
    """Return what is in it until now: minutes, then quarters, oldest first."""
    rows = connection.execute(
        # The order of the primary key, in which they lie there.
        select(table)
        .where(table.c.at <= now)
        .order_by(table.c.step_seconds, table.c.at)
    )
    return [
        UsageRow(
            step_seconds=step_seconds,
            at=at,
            device=device,
            values=tuple(_NAN if value is None else value for value in values),
        )
        for step_seconds, at, device, *values in rows
    ]


def write_usage(
    connection: Connection,
    table: Table,
    rows: Sequence[UsageRow],
    now: float,
    keep_seconds: float,
) -> None:
    """Set rows, and remove those that are too old or lie ahead. Again does no harm.

    With `keep_seconds` without end nothing is too old, no minute either.
    """
    if rows:
        statement = insert(table)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["step_seconds", "at", "device"],
                set_={name: statement.excluded[name] for name in MERGED},
            ),
            [
                {
                    "step_seconds": row.step_seconds,
                    "at": row.at,
                    "device": row.device,
                    **{
                        name: None if value != value else value
                        for name, value in zip(MERGED, row.values, strict=True)
                    },
                }
                for row in rows
            ],
        )
    step, at = table.c.step_seconds, table.c.at
    minutes_seconds = keep_seconds if isinf(keep_seconds) else MINUTES_KEPT_SECONDS
    connection.execute(
        delete(table).where(
            or_(
                # What a clock wrote that has been set back since.
                at > now,
                (step == MINUTE_SECONDS) & (at < now - minutes_seconds),
                (step == QUARTER_SECONDS) & (at < now - keep_seconds),
            )
        )
    )
