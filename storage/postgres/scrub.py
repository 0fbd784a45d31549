"""Taking what was deleted or overwritten out of the tables of a PostgreSQL database.

``VACUUM`` removes rows that no transaction can see any more, so it leaves them where somebody still can: it goes by the
oldest number of a running transaction, an open snapshot, a prepared transaction or a replication slot. What the server
keeps beside its rows (free space in pages, its log of writes, its backups) is for whoever runs it.
"""

from __future__ import annotations

import time
from typing import Final

from storage.postgres.connect import Connected

#: Tables in which people are named.
_PERSONAL: Final = ("changes", "decisions", "engagement", "events", "messages", "recipients", "rhythms")
_POLL_SECONDS: Final = 0.02
#: A number that is higher than that of whatever was committed before.
_NUMBER: Final = "SELECT pg_current_xact_id()::xid::text"
#: Whether somebody may still see what was there before that number was given. Of other databases' sessions none can.
_SEEN: Final = """
SELECT EXISTS (
  SELECT FROM (
    SELECT unnest(ARRAY[backend_xid, backend_xmin]) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL)
    UNION ALL SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()
    UNION ALL SELECT xmin FROM pg_replication_slots
  ) AS held (number) WHERE age(number) > age($1::text::xid)
)
"""


def scrub(connection: Connected, wait_seconds: float) -> bool:
    """Removes dead rows from the tables that name people; False while somebody can still see them.

    Args:
        connection: one of its own.
        wait_seconds: how long transactions under way are waited for.

    Raises:
        psycopg.Error: the server refuses, or can't be reached.
    """
    unseen = _unseen(connection, time.monotonic() + wait_seconds)
    connection.execute("SET statement_timeout = 0")
    for table in _PERSONAL:
        connection.execute(f"VACUUM {table}")
    return unseen


def _unseen(connection: Connected, latest: float) -> bool:
    """Waits until nobody sees any more what was there at the start; False when that takes too long."""
    ((number,),) = connection.execute(_NUMBER).fetchall()
    while True:
        ((seen,),) = connection.execute(_SEEN, (number,)).fetchall()
        if not seen or time.monotonic() > latest:
            return not seen
        time.sleep(_POLL_SECONDS)
