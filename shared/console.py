"""How commands speak: results on stdout, everything else on stderr, a failure as one sentence and its exit code."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager

from cyclopts import App, CycloptsError
from rich.console import Console

from shared.errors import ConfigError, ExitCode, FedhubError


def printable(text: str) -> str:
    """Make text from elsewhere safe to show: no control characters, so no terminal escapes; line breaks stay."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def say(line: str) -> None:
    """Tell the person at the terminal something that is not a result; if nobody listens any more, nothing happens."""
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201  # the one place that speaks to stderr
    except OSError:
        pass


def result(line: str) -> None:
    """Give a result: what another program may read."""
    print(line, flush=True)  # noqa: T201  # the one place that writes results


def size(nbytes: float) -> str:
    """Write a number of bytes as people read it: `9.7 kB`."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if nbytes < 1000:
            break
        nbytes, unit = nbytes / 1000, larger
    return f"{nbytes:.0f} {unit}" if unit == "B" or nbytes >= 10 else f"{nbytes:.1f} {unit}"


def pairs(texts: list[str], *, flag: str) -> dict[str, str]:
    """Read options like `file=mine.pt`.

    Raises:
        ConfigError: one of `texts` has no equals sign.
    """
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"{flag} {text!r} is not like {flag} name=value")
        options[name] = value
    return options


@contextmanager
def stop_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Have the first Ctrl-C or SIGTERM call `stop` in the running event loop; the second ends the process at once."""
    loop = asyncio.get_running_loop()
    told = 0

    def hear(*_: object) -> None:
        nonlocal told
        told += 1
        if told > 1:
            os._exit(ExitCode.INTERRUPTED)
        loop.call_soon_threadsafe(stop)

    # signal.signal and not loop.add_signal_handler: the latter does not exist on Windows.
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def until_stopped(life: Coroutine[object, object, None]) -> None:
    """Live until `life` is over or the person at the terminal stops it."""
    living = asyncio.create_task(life)
    with stop_signals(living.cancel):
        await asyncio.wait([living])
    if not living.cancelled():
        living.result()


def run(app: App, arguments: list[str] | None = None) -> ExitCode:
    """Run a command line; whatever goes wrong that a user can mend is told in a sentence, without a traceback."""
    name = app.name[0]
    try:
        code = app(
            arguments,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
            error_console=Console(stderr=True),
        )
        return ExitCode(code or 0)
    except CycloptsError as error:
        typed = " ".join([name, *(error.command_chain or ())])
        say(f"{name}: {printable(str(error)).strip()}\nTry: {typed} --help")
        return ExitCode.USAGE
    except FedhubError as error:
        say(f"{name}: {printable(str(error))}")
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; so do we, without a complaint at exit
        return ExitCode.FAILURE


def command_line(name: str, *, version: str, help: str) -> App:
    """Make the command line called `name`; commands are added with `@app.command`."""
    return App(
        name=name,
        version=version,
        help=help,
        version_flags=["--version"],
        help_flags=["--help", "-h"],
        suppress_keyboard_interrupt=False,  # `run` gives the exit code
    )
