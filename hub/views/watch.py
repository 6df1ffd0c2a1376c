"""Follows a hub from another terminal or another machine: the same log, over the network."""

import asyncio
import secrets

from hub.events import from_line
from hub.feed import Feed
from hub.views.log import follow_log
from shared.link import connect
from shared.messages import PROTOCOL_VERSIONS, Goodbye, Hello, News, Role


async def watch(url: str, *, log: str) -> None:
    """Show the hub's log until it stops.

    Args:
        url: of the hub.
        log: auto, pretty or json.

    Raises:
        Unreachable, ConfigError: there is no hub at `url`.
        LinkClosed: the connection was lost.
    """
    link = await connect(url)
    await link.send(Hello(versions=PROTOCOL_VERSIONS, edge=f"watcher-{secrets.token_hex(4)}", role=Role.WATCHER))
    feed = Feed()
    showing = asyncio.create_task(follow_log(feed.follow(), log))
    try:
        while not isinstance(message := (await link.receive()).message, Goodbye):
            if isinstance(message, News):
                for line in message.facts:
                    feed.repeat(from_line(line))
    finally:
        feed.close()
        await showing
        link.abort()
