"""The commands take their settings from where they should, and refuse before they have opened anything."""

import sys
from pathlib import Path

import pytest

import hub.replay
from hub.__main__ import cli
from hub.config import Settings
from shared.console import run
from shared.errors import ExitCode


@pytest.fixture
def listened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Be in a folder with a run, where a replay only notes where it would listen."""
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "events.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    noted: list[Settings] = []

    class Noting:
        def __init__(self, run: Path, settings: Settings, *, speed: float) -> None:
            noted.append(settings)

        async def serve(self) -> None: ...

    monkeypatch.setattr(hub.replay, "Replay", Noting)
    return noted


def test_a_replay_listens_where_flags_environment_and_file_say(
    listened: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(cli, ["replay"]) is ExitCode.DONE
    Path("fedhub.toml").write_text('hosts = "hub.example"\nport = 1001\n')
    assert run(cli, ["replay"]) is ExitCode.DONE
    monkeypatch.setenv("FEDHUB_HOST", "192.0.2.1")
    monkeypatch.setenv("FEDHUB_PORT", "1002")
    assert run(cli, ["replay"]) is ExitCode.DONE
    assert run(cli, ["replay", "--port", "1003"]) is ExitCode.DONE
    assert [(one.host, one.hosts, one.port) for one in listened] == [
        ("127.0.0.1", "", 0),
        ("127.0.0.1", "hub.example", 1001),
        ("192.0.2.1", "hub.example", 1002),
        ("192.0.2.1", "hub.example", 1003),
    ]


def test_a_replay_is_open_to_the_network_if_that_is_set_anywhere(
    listened: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(cli, ["replay", "--lan"]) is ExitCode.DONE
    monkeypatch.setenv("FEDHUB_LAN", "true")
    assert run(cli, ["replay"]) is ExitCode.DONE
    assert run(cli, ["replay", "--no-lan"]) is ExitCode.DONE
    assert [one.lan for one in listened] == [True, True, False]


@pytest.mark.parametrize("arguments", [["serve", "digits"], ["demo"]])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_opened(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert run(cli, [*arguments, "--port", "0", "--track", "mlflow"]) is ExitCode.USAGE
    err = capsys.readouterr().err
    assert "pip install 'fedhub[mlflow]'" in err
    assert "listening" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "demo", "watch", "show", "compare", "replay", "check"])
def test_help_shows_no_default_that_says_nothing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, [command, "--help"]) is ExitCode.DONE
    shown = capsys.readouterr().out
    assert '[default: ""]' not in shown
    assert "[default: 1.0]" not in shown
