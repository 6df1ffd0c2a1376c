"""Commands speak plainly: results on stdout, all else on stderr, a failure in one sentence; a first Ctrl-C is kind."""

import asyncio
import io
import os
import signal
import subprocess
import sys

import pytest

from shared.console import command_line, pairs, printable, result, run, say, size, stop_signals, until_stopped
from shared.errors import (
    ConfigError,
    ExitCode,
    FedhubError,
    JournalError,
    LinkClosed,
    TooFewEdges,
    TurnedAway,
    Unreachable,
)


def test_what_could_command_a_terminal_is_shown_as_a_mark() -> None:
    assert printable("\x1b[31mred\x07\r\n\u202eend\x9b") == "\ufffd[31mred\ufffd\ufffd\n\ufffdend\ufffd"
    assert printable("größe 東京 · 1") == "größe 東京 · 1"


def test_results_go_to_stdout_and_everything_else_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("working")
    result("42")
    assert capsys.readouterr() == ("42\n", "working\n")


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9700, "9.7 kB"), (12_300, "12 kB"), (6_640_000, "6.6 MB"),
        (3.2e9, "3.2 GB"), (5e13, "50 TB"), (5e16, "50000 TB"),
    ],
)  # fmt: skip
def test_sizes_are_written_as_people_read_them(nbytes: float, text: str) -> None:
    assert size(nbytes) == text


def test_options_are_read_as_names_and_values() -> None:
    assert pairs([], flag="--data") == {}
    assert pairs(["file=a=b", "net=", "file=c"], flag="--data") == {"file": "c", "net": ""}


@pytest.mark.parametrize("text", ["file", "=x", ""])
def test_an_option_without_name_or_equals_sign_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^--data '{text}' is not like --data name=value$"):
        pairs([text], flag="--data")


# --- Ctrl-C ---


class EndedAtOnce(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_stops_and_afterwards_signals_are_what_they_were(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stopped = asyncio.Event()
    with stop_signals(stopped.set):
        signal.raise_signal(number)
        await stopped.wait()
    assert signal.getsignal(number) is before


async def test_the_second_signal_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(code: int) -> None:
        raise EndedAtOnce(code)

    monkeypatch.setattr(os, "_exit", ended)
    stops: list[int] = []
    with stop_signals(lambda: stops.append(1)):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(EndedAtOnce) as end:
            signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)
    assert end.value.args == (130,)
    assert stops == [1]


def test_a_process_that_is_told_twice_has_ended_with_130() -> None:
    program = """
import asyncio, signal
from shared.console import stop_signals
async def main():
    with stop_signals(lambda: signal.raise_signal(signal.SIGINT)):
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 130


async def test_a_life_that_ends_by_itself_is_over() -> None:
    lived = []

    async def life() -> None:
        lived.append(True)

    await until_stopped(life())
    assert lived == [True]


async def test_a_life_that_is_stopped_is_over_without_a_complaint() -> None:
    async def life() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    await until_stopped(life())


async def test_a_life_that_fails_is_heard_of() -> None:
    async def life() -> None:
        raise Unreachable("nobody there")

    with pytest.raises(Unreachable, match="nobody there"):
        await until_stopped(life())


# --- a command line ---


def played(outcome: object, *arguments: str) -> ExitCode:
    """Run a command called `tool go` that returns or raises `outcome`."""
    app = command_line("tool", version="1.2.3", help="A tool.")

    @app.command
    def go(*, count: int = 0) -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return run(app, list(arguments) or ["go"])


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (ExitCode.DONE, 0), (ExitCode.TOO_FEW_EDGES, 3)])
def test_a_command_returns_its_exit_code(returned: object, code: int) -> None:
    assert played(returned) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no such app"), 2),
        (FedhubError("no such app"), 1),
        (LinkClosed(1006, "no such app"), 1),
        (JournalError("no such app"), 1),
        (TurnedAway("no such app"), 4),
        (TurnedAway("no such app", ExitCode.PROTOCOL_VERSION), 5),
        (TooFewEdges("no such app"), 3),
    ],
)
def test_a_failure_is_one_sentence_and_an_exit_code(
    error: FedhubError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert played(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tool: ")
    assert "no such app" in err
    assert err.count("\n") == 1


def test_a_failure_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    played(FedhubError("the edge said \x1b[2J"))
    assert capsys.readouterr().err == "tool: the edge said \ufffd[2J\n"


@pytest.mark.parametrize(
    ("arguments", "where"), [(["go", "--count", "many"], " go"), (["go", "--cuont", "1"], " go"), (["stay"], "")]
)
def test_a_mistake_in_the_command_line_is_told_with_where_to_look(
    arguments: list[str], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert played(None, *arguments) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tool: ")
    assert err.endswith(f"\nTry: tool{where} --help\n")


def test_ctrl_c_where_nobody_listens_for_it_is_an_interruption() -> None:
    assert played(KeyboardInterrupt()) == ExitCode.INTERRUPTED


def test_a_reader_who_has_gone_is_no_reason_to_complain(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert played(BrokenPipeError()) == ExitCode.FAILURE
    assert stderr.closed


def test_what_is_said_when_nobody_listens_any_more_is_lost_without_a_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    say("hello?")


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        played(ZeroDivisionError())


@pytest.mark.parametrize(("flag", "shown"), [("--version", "1.2.3"), ("--help", "A tool."), ("-h", "A tool.")])
def test_version_and_help_are_results(flag: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert played(None, flag) == ExitCode.DONE
    assert shown in capsys.readouterr().out
