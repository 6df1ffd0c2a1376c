"""Says, when a hub opens, where it is and how to get in."""

import io
import sys

import segno

from hub.rules.access import Access
from hub.views.page import NOT_BUILT


def banner(url: str, access: Access, *, page: bool, kept: str, join: str | None = None) -> list[str]:
    """Give the lines that tell a person where the page is and how an edge joins.

    The keys are shown on a terminal alone: elsewhere these lines go into a log.

    Args:
        url: of the hub, without a key.
        access: who may come in.
        page: whether there is a page.
        kept: the file that holds the keys.
        join: the app that an edge joins with; None where no edge may.
    """
    shown = sys.stderr.isatty()
    at = f"{url.replace('ws', 'http', 1)}/"
    mine, theirs = f"{at}#k={access.keys.operator}", f"{at}#k={access.keys.guest}"
    key = f"#{access.keys.guest}" if access.open and shown else ""
    lines = [f"  page   {mine if shown else f'{at}   (its key is in {kept})'}" if page else f"  page   {NOT_BUILT}"]
    if join is not None:
        lines.append(f"  join   fededge join {url}{key} {join}".rstrip())
    lines.append(f"  watch  fedhub watch {url}{key}")
    if access.open and page and shown:
        code = io.StringIO()
        segno.make(theirs).terminal(code, compact=True, border=2)
        lines[0] += "   (yours: whoever has this link may pause and stop)"
        lines += [f"  guests {theirs}", *code.getvalue().rstrip("\n").split("\n")]
    return lines
