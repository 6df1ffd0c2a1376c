"""Every way Fedhub can fail, sorted by whose fault it is, so that each failure can say what to do next."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a Fedhub command tells the shell when it ends."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    """A mistake in the command line, the configuration or the app file."""
    TOO_FEW_EDGES = 3
    REFUSED = 4
    """The hub turned this edge away."""
    PROTOCOL_VERSION = 5
    INTERRUPTED = 130
    """Stopped at once, by a second Ctrl-C."""


class FedhubError(Exception):
    """The root of the family: an error a user can read, without a traceback."""

    exit_code = ExitCode.FAILURE


class ConfigError(FedhubError):
    """Yours: something typed or written cannot be used. Start-up stops and names it."""

    exit_code = ExitCode.USAGE


class Diverged(FedhubError):
    """Nobody's: a round would lead to a model, or to a server optimizer's memory, that holds infinity or NaN."""


class ProtocolError(FedhubError):
    """Theirs: the other side sent what the protocol does not allow. That link closes, everything else goes on."""


class SpecMismatch(ProtocolError):
    """Theirs: tensors that are not those of the model (names, order, dtypes, shapes or byte lengths differ)."""


class LinkClosed(FedhubError):
    """Nobody's: the connection ended.

    Args:
        code: the websocket close code (RFC 6455, section 7.4); 1006 when the line was simply cut.
        reason: what the other side said, or what the network did.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"connection closed ({code}{': ' + reason if reason else ''})")
        self.code = code
        self.reason = reason


class Unreachable(FedhubError):
    """Nobody's yet: no connection could be made. The message says where to, why not, and what to try."""


class TurnedAway(FedhubError):
    """The hub said goodbye and does not want this edge back; `exit_code` says which kind of no it was."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class TooFewEdges(FedhubError):
    """Nobody's: round after round, fewer edges answered than the quorum asks for."""

    exit_code = ExitCode.TOO_FEW_EDGES


class JournalError(FedhubError):
    """The disk's: what must not be forgotten could not be written or read back. The hub stops."""


class Damaged(JournalError):
    """The disk's: what was read is not what was written. Reading it again would not help; an older copy may."""


class DiskFull(JournalError):
    """The disk's: there is no space now. Nothing was harmed, and the same may succeed later."""


class NothingAccumulated(FedhubError):
    """Ours: the mean of no updates was asked for. Zeros would erase the model, so this is an error."""
