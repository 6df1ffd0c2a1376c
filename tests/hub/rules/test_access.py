"""Who may join, watch and command: decided from a key, a role, and what a browser says about itself."""

import pytest

from hub.rules.access import Access, Keys, Rank
from shared.messages import Role

KEYS = Keys(guest="guests-key", operator="operators-key")
AT_HOME = Access(KEYS, open=False)
OPEN = Access(KEYS, open=True, names=frozenset({"hub.local", "fed.example.org"}))


@pytest.mark.parametrize(
    ("key", "rank"),
    [("guests-key", Rank.GUEST), ("operators-key", Rank.OPERATOR), ("", Rank.STRANGER), ("guests-keyé", Rank.STRANGER)],
)
def test_a_key_gives_its_bearer_a_rank(key: str, rank: Rank) -> None:
    assert OPEN.rank(key) is rank


@pytest.mark.parametrize("role", [Role.TRAINER, Role.EVALUATOR])
def test_an_edge_needs_a_key_only_where_others_reach_the_hub(role: Role) -> None:
    assert AT_HOME.admits(role, "")
    assert not OPEN.admits(role, "")
    assert OPEN.admits(role, "guests-key")
    assert OPEN.admits(role, "operators-key")


@pytest.mark.parametrize("role", [Role.WATCHER, Role.VIEWER])
@pytest.mark.parametrize("access", [AT_HOME, OPEN])
def test_whoever_watches_always_shows_a_key(access: Access, role: Role) -> None:
    assert not access.admits(role, "")
    assert not access.admits(role, "wrong")
    assert access.admits(role, "guests-key")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8765", "192.168.1.20:8765", "[::1]:8765", "localhost", "LOCALHOST:80", "hub.local:8765", "Hub.Local."],
)
def test_plain_addresses_and_the_names_of_the_hub_are_ours(host: str) -> None:
    assert OPEN.is_ours(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "[::1",
        "hub.local.evil.example",
        "[a]",
        "127.0.0.1, evil.example",
        "evil.example@127.0.0.1",
    ],
)
def test_any_other_name_is_not_ours(host: str) -> None:
    assert not OPEN.is_ours(host)


def test_a_page_of_the_hub_may_call_it_and_no_other_page_may() -> None:
    assert OPEN.may_call("hub.local:8765", "http://hub.local:8765")
    assert OPEN.may_call("192.168.1.20:8765", "https://192.168.1.20:8765")
    assert not OPEN.may_call("192.168.1.20:8765", "http://evil.example")
    assert not OPEN.may_call("127.0.0.1:8765", "http://127.0.0.1:9999")
    assert not OPEN.may_call("127.0.0.1:8765", "null")
    assert not OPEN.may_call("127.0.0.1:8765", "http://[")


def test_a_page_whose_name_was_made_to_lead_here_may_not_call() -> None:
    assert not OPEN.may_call("evil.example:8765", "http://evil.example:8765")


def test_whoever_is_no_browser_may_call_by_any_name() -> None:
    assert OPEN.may_call("gateway.example", None)
