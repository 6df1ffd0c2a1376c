"""Every setting has one value and one source, the stronger source wins, and a mistake is told with what to write."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hub.config import (
    HELP,
    OPERATORS_ALONE,
    Layer,
    Resolved,
    Settings,
    did_you_mean,
    from_app,
    from_environment,
    from_file,
    resolve,
)
from shared.errors import ConfigError


def flags(**values: Any) -> Layer:
    return Layer("flag", values)


def test_without_any_source_everything_is_at_its_default() -> None:
    resolved = resolve()
    assert resolved.settings == Settings()
    assert set(resolved.sources.values()) == {"default"}
    assert set(resolved.sources) == set(HELP) == {one.name for one in fields(Settings)}


def test_every_setting_says_what_it_is_for() -> None:
    assert all(HELP.values())


def test_flags_win_over_the_environment_that_over_the_file_that_over_the_app(tmp_path: Path) -> None:
    file = tmp_path / "fedhub.toml"
    file.write_text("rounds = 3\nlr = 0.3\nbatch = 3\n", "utf-8")
    resolved = resolve(
        flags(rounds=1),
        from_environment({"FEDHUB_ROUNDS": "2", "FEDHUB_LR": "0.2", "PATH": "/bin"}),
        from_file(file),
        from_app({"rounds": 4, "lr": 0.4, "batch": 4, "epochs": 4}, "my_app.py"),
    )
    chosen = resolved.settings
    assert (chosen.rounds, chosen.lr, chosen.batch, chosen.epochs, chosen.seed) == (1, 0.2, 3, 4, 0)
    assert [resolved.sources[name] for name in ("rounds", "lr", "batch", "epochs", "seed")] == [
        "flag", "environment", str(file), "my_app.py", "default",
    ]  # fmt: skip


def test_what_is_resolved_cannot_be_changed() -> None:
    resolved: Any = resolve()
    assert isinstance(resolved, Resolved)
    with pytest.raises(AttributeError):
        resolved.settings.rounds = 7


@pytest.mark.parametrize(
    ("name", "answer"),
    [("ruonds", "did you mean 'rounds'?"), ("learning", "there are algorithm, batch, deadline, durability")],
)
def test_an_unknown_setting_is_named_with_its_source_and_the_likely_one(name: str, answer: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(flags(**{name: 7}))
    assert str(error.value).startswith(f"--{name}: there is no such setting; {answer}")


def test_an_unknown_variable_with_our_prefix_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^FEDHUB_PROT: there is no such setting; did you mean 'port'"):
        resolve(from_environment({"FEDHUB_PROT": "80"}))


def test_variables_of_others_with_our_prefix_are_left_alone() -> None:
    layer = from_environment({"FEDHUB_DATA": "/data", "FEDHUB_SEED": "7"}, others=frozenset({"FEDHUB_DATA"}))
    assert layer.values == {"seed": "7"}


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [("port", "0", 0), ("lr", "1e-3", 0.001), ("target", "0.97", 0.97), ("target", "null", None), ("name", "7", "7")],
)
def test_variables_are_text_that_is_read_as_the_settings_type(setting: str, text: str, value: Any) -> None:
    settings = resolve(from_environment({f"FEDHUB_{setting.upper()}": text})).settings
    assert getattr(settings, setting) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 0), ("rounds", -1), ("rounds", 1.5), ("rounds", "7"), ("rounds", True), ("rounds", 2**53 + 1),
        ("port", 65_536), ("port", -1), ("deadline", 0), ("deadline", 2_592_001), ("deadline", math.inf),
        ("fraction", 0), ("fraction", 1.01), ("fraction", math.nan), ("quorum", 0.0), ("quorum", 1.1),
        ("over_selection", 0.9), ("over_selection", math.inf), ("lr", 0), ("lr", -0.1), ("lr", math.inf),
        ("lr", math.nan), ("holdout", 1), ("holdout", -0.1), ("seed", -1), ("seed", 2**64), ("batch", -1),
        ("patience", -1), ("retries", -1), ("target", "high"), ("host", 7), ("rounds", {"of": 7}), ("rounds", None),
        ("max_examples", 0), ("max_examples", 2**63), ("epochs", 0), ("evaluate_every", 0), ("wait_for", 0),
    ],
)  # fmt: skip
def test_an_impossible_value_is_named_with_its_source(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(flags(**{name: value}))
    assert str(error.value).startswith(f"--{name.replace('_', '-')} = {value!r} is impossible: expected ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 1), ("port", 0), ("port", 65_535), ("fraction", 1), ("fraction", 1e-9), ("quorum", 1.0), ("lr", 1),
        ("over_selection", 1), ("holdout", 0), ("batch", 0), ("deadline", 60), ("target", None), ("seed", 2**53),
    ],
)  # fmt: skip
def test_a_value_at_the_edge_of_the_possible_is_possible(name: str, value: Any) -> None:
    assert getattr(resolve(flags(**{name: value})).settings, name) == value


def test_numbers_become_what_the_setting_is() -> None:
    assert type(resolve(flags(deadline=60)).settings.deadline) is float


def test_variables_that_cannot_be_read_are_told() -> None:
    with pytest.raises(ConfigError, match=r"FEDHUB_PORT = 'http' is impossible: expected a whole number"):
        resolve(from_environment({"FEDHUB_PORT": "http"}))


def test_a_mistake_in_a_weaker_source_is_told_though_a_stronger_one_is_right() -> None:
    with pytest.raises(ConfigError, match="app: rounds = 0 is impossible"):
        resolve(flags(rounds=7), Layer("app", {"rounds": 0}))


def test_the_log_has_three_styles() -> None:
    assert [resolve(flags(log=log)).settings.log for log in ("auto", "pretty", "json")] == ["auto", "pretty", "json"]
    with pytest.raises(ConfigError, match="log: 'loud' is not one of auto, pretty, json"):
        resolve(flags(log="loud"))


def test_durability_is_of_updates_or_of_rounds() -> None:
    assert [resolve(flags(durability=what)).settings.durability for what in ("update", "round")] == ["update", "round"]
    with pytest.raises(ConfigError, match="durability: 'none' is neither update nor round"):
        resolve(flags(durability="none"))


@pytest.mark.parametrize(("said", "rounds"), [(0, 0), (3, 3), ("3", 3), ("all", 2**53)])
def test_updates_are_kept_of_so_many_rounds_or_of_all(said: int | str, rounds: int) -> None:
    assert resolve(flags(keep_updates=said)).settings.rounds_kept == rounds
    assert resolve(from_environment({"FEDHUB_KEEP_UPDATES": str(said)})).settings.rounds_kept == rounds


@pytest.mark.parametrize("said", [-1, "-1", "1.5", "every", ""])
def test_updates_of_no_number_of_rounds_are_told(said: int | str) -> None:
    with pytest.raises(ConfigError, match=f"keep_updates: {said!r} is neither a number of rounds nor all"):
        resolve(flags(keep_updates=said))


def test_updates_that_are_not_written_down_cannot_be_kept() -> None:
    assert resolve(flags(durability="round", keep_updates=0)).settings.rounds_kept == 0
    with pytest.raises(ConfigError, match="keep_updates: only durability = update writes updates down"):
        resolve(flags(durability="round", keep_updates=1))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file or directory"):
        from_file(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        from_file(tmp_path)


@pytest.mark.parametrize("content", [b"rounds 3", b"rounds = 3\nrounds = 4", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fedhub.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"fedhub\.toml is not TOML: "):
        from_file(tmp_path / "fedhub.toml")


@pytest.mark.parametrize("name", OPERATORS_ALONE)
def test_an_app_cannot_set_what_is_the_operators_alone(name: str) -> None:
    with pytest.raises(ConfigError, match=f"my_app.py: an app cannot set '{name}'; use the flag or fedhub.toml"):
        from_app({"rounds": 7, name: "x"}, "my_app.py")


def test_a_suggestion_is_the_end_of_a_sentence() -> None:
    assert did_you_mean("mnits", ["mnist", "digits"]) == "; did you mean 'mnist'?"
    assert did_you_mean("zzz", ["mnist", "digits"]) == "; there are digits, mnist"


def test_what_a_switch_takes_is_said() -> None:
    with pytest.raises(ConfigError, match=r"^FEDHUB_LAN = 'maybe' is impossible: expected true or false, got text$"):
        resolve(from_environment({"FEDHUB_LAN": "maybe"}))
