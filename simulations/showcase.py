"""``sendtide showcase``: a database with a made-up shop's last weeks in it, to look at the console with."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.config import Settings
from optimizer.errors import Conflict

if TYPE_CHECKING:
    from simulations.showcase_shop import Tell

#: Days after which campaigns are trained: the first time there is enough to learn from, then every two weeks.
TRAINED_AFTER = (14, 28, 42, 56, 70, 84)


@click.command("showcase", epilog=EXIT_CODES)
@option("--people", type=click.IntRange(20, 100_000), default=600, show_default=True, help="Size of the audience.")
@option("--days", type=click.IntRange(2, 400), default=40, show_default=True, help="Days, the last one today.")
@option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of the audience.")
@command(workspace=False)
def showcase(call: Call, *, people: int, days: int, seed: int) -> None:
    """Fill a new database with a made-up shop's last weeks, and print a key to look at it with.

    Then: sendtide serve --database URL, and open /console. Takes a minute or so.
    """
    from rich.console import Console

    from optimizer.service.wiring import utc_now

    with Console(stderr=True).status("starting") as status:
        secret = fill(call.settings, utc_now(), people=people, days=days, seed=seed, tell=status.update)
    call.answer({"key": secret}, secret)


def fill(settings: Settings, until: datetime, *, people: int, days: int, seed: int, tell: Tell) -> str:
    """Lives the shop's days up to ``until``; returns an admin key of the workspace ``default``.

    Raises:
        Conflict: the database has decisions already.
    """
    from optimizer.service.setup import create_key
    from optimizer.web.app import create_app
    from simulations.client import AppClient
    from simulations.clock import SteppingClock
    from simulations.showcase_shop import DAY, EVENING, TRAINING, WORKSPACE, Shop, live

    trained_on = [day for day in TRAINED_AFTER if day < days]
    clock = SteppingClock(until - (days - 1) * DAY - EVENING - len(trained_on) * TRAINING)
    # Encoders are compared for minutes and would gain nothing on an audience whose past tells nothing of it.
    app = create_app(settings.override(reload_seconds=60.0, encoder="none"), clock=clock, seed=seed)
    holder = app.extensions["sendtide"]
    services = holder.get()
    try:
        with services.store.read() as reader:
            if reader.decisions(WORKSPACE, limit=1).items:
                raise Conflict("the database has decisions already; name one that doesn't exist yet", code="not_empty")
        _, secret = create_key(services, WORKSPACE, "showcase", ["admin"])
        shop = Shop(AppClient(app, secret), services, clock)
        live(shop, people=people, days=days, trained_on=trained_on, seed=seed, tell=tell)
    finally:
        holder.close()
    return secret
