"""Says, when a hub opens, where it is and how to get in."""

import io
import shlex
import sys
from pathlib import Path

import segno

from hub.config import Settings
from hub.keys import FILE
from hub.rules.access import Access
from hub.views.page import NOT_BUILT


def banner(url: str, access: Access, *, page: bool, runs: str, join: str | None = None) -> list[str]:
    """Give the lines that tell a person where the page is and how an edge joins.

    The keys are shown on a terminal alone: elsewhere these lines go into a log.

    Args:
        url: of the hub, without a key.
        access: who may come in.
        page: whether there is a page.
        runs: the folder that holds the keys.
        join: the app that an edge joins with; None where no edge may, for the run is over.
    """
    shown = sys.stderr.isatty()
    at = f"{url.replace('ws', 'http', 1)}/"
    mine, theirs = f"{at}#k={access.keys.operator}", f"{at}#k={access.keys.guest}"
    key = f"#{access.keys.guest}" if access.open and shown else ""
    where = "" if key or runs == Settings.runs else f" --runs {shlex.quote(runs)}"
    unseen = f"{at}   (its key is in {Path(runs) / FILE})"
    lines = [f"  page   {mine if shown else unseen}" if page else f"  page   {NOT_BUILT}"]
    if join is not None:
        lines.append(f"  join   fededge join {url}{key} {join}".rstrip())
    lines.append(f"  watch  fedhub watch {url}{key}{where}")
    if access.open and page and shown:
        if join is not None:
            lines[0] += "   (yours: whoever has this link may pause and stop)"
        code = io.StringIO()
        segno.make(theirs).terminal(code, compact=True, border=2)
        lines += [f"  guests {theirs}", *code.getvalue().rstrip("\n").split("\n")]
    return lines
