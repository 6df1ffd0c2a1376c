"""An edge remembers what counts, forgets what does not, and finds it again after a restart, or says why it cannot."""

from pathlib import Path

import numpy as np
import pytest

from edge.memory import Memory
from shared.errors import ConfigError
from shared.messages import ABANDONED, Receipt, Train
from shared.snapshot import write_tensors
from shared.tensors import Tensors
from tests.support.examples import MODEL, PLAN, same_tensors


def task(round: int, attempt: int = 1, *, run: str = "run1") -> Train:
    return Train(run=run, round=round, attempt=attempt, model="0" * 64, seconds=1.0, plan=PLAN)


def receipt(round: int, attempt: int = 1, *, run: str = "run1", code: str = "") -> Receipt:
    return Receipt(run=run, round=round, attempt=attempt, accepted=not code, code=code, reason="")


def of(value: float) -> Tensors:
    return {"c": np.array(value)}


def opened(folder: Path | None = None, *, run: str = "run1") -> Memory:
    memory = Memory(folder, "edge-1")
    memory.open(run)
    return memory


def trained(memory: Memory, round: int, attempt: int = 1) -> Memory:
    """Train: what is remembered grows by one."""
    before = memory.at(round).get("c", np.array(0.0))
    memory.propose(task(round, attempt), of(before + 1))
    return memory


def counted(memory: Memory, rounds: int) -> Memory:
    for number in range(1, rounds + 1):
        trained(memory, number).heard(receipt(number))
    return memory


def value(memory: Memory) -> float | None:
    return float(memory.now["c"]) if memory.now else None


def test_what_was_accepted_is_remembered_and_nothing_before_it_is() -> None:
    memory = trained(opened(), 1)
    assert value(memory) is None
    memory.heard(receipt(1))
    assert value(memory) == 1
    assert memory.at(2) is memory.now


@pytest.mark.parametrize("code", ["late", "not-finite", "stale"])
def test_what_was_refused_is_not_remembered_and_the_round_before_it_is(code: str) -> None:
    memory = trained(counted(opened(), 2), 3)
    memory.heard(receipt(3, code=code))
    assert value(memory) == 2


def test_what_is_abandoned_after_it_was_accepted_is_taken_back() -> None:
    memory = counted(opened(), 3)
    memory.heard(receipt(3, code=ABANDONED))
    assert value(memory) == 2
    trained(memory, 3, attempt=2).heard(receipt(3, attempt=2))
    assert value(memory) == 3


def test_what_is_abandoned_before_it_was_heard_to_be_accepted_is_not_remembered_unless_it_counts_after_all() -> None:
    memory = trained(counted(opened(), 2), 3)
    memory.heard(receipt(3, code=ABANDONED))
    assert value(memory) == 2
    memory.heard(receipt(3))  # a hub that was killed has asked for the same try again
    assert value(memory) == 3


def test_that_an_older_round_was_abandoned_twice_takes_nothing_more_back() -> None:
    memory = counted(opened(), 3)
    for _ in range(2):
        memory.heard(receipt(3, code=ABANDONED))
    assert value(memory) == 2


@pytest.mark.parametrize("round", [3, 2])
def test_a_round_that_is_asked_again_begins_with_what_was_there_before_it(round: int) -> None:
    memory = counted(opened(), 3)  # and the hub came back without the last
    assert memory.at(round)["c"] == 2
    assert memory.at(round)["c"] == 2
    trained(memory, round).heard(receipt(round))
    assert value(memory) == 3
    assert memory.at(round + 1)["c"] == 3


def test_the_receipt_of_another_try_is_not_for_this_answer() -> None:
    memory = trained(opened(), 1, attempt=2)
    memory.heard(receipt(1, attempt=1))
    assert value(memory) is None
    memory.heard(receipt(1, attempt=2))
    assert value(memory) == 1


def test_the_same_receipt_twice_counts_once() -> None:
    memory = counted(opened(), 2)
    memory.heard(receipt(2))
    assert value(memory) == 2
    memory.heard(receipt(2, code=ABANDONED))
    assert value(memory) == 1


def test_a_newer_answer_takes_the_place_of_one_that_was_never_answered() -> None:
    memory = trained(trained(opened(), 1), 2)
    memory.heard(receipt(1))
    assert value(memory) is None
    memory.heard(receipt(2))
    assert value(memory) == 1


def test_another_run_begins_with_nothing_and_its_receipts_are_its_own() -> None:
    memory = counted(opened(), 2)
    memory.open("run1")
    assert value(memory) == 2
    trained(memory, 3)
    memory.open("run2")
    memory.heard(receipt(3))
    assert value(memory) is None
    memory.propose(task(1, run="run2"), of(9.0))
    memory.heard(receipt(1, run="run1"))
    assert value(memory) is None
    memory.heard(receipt(1, run="run2"))
    assert value(memory) == 9


def test_an_algorithm_that_remembers_nothing_keeps_no_file(tmp_path: Path) -> None:
    memory = opened(tmp_path)
    memory.propose(task(1), {})
    memory.heard(receipt(1))
    assert list(tmp_path.iterdir()) == []


# --- on the disk ---


def test_a_new_process_finds_what_counted(tmp_path: Path) -> None:
    counted(opened(tmp_path), 2)
    trained(opened(tmp_path), 3)  # ends before there is a receipt
    assert value(opened(tmp_path)) == 2
    assert value(opened(tmp_path, run="run2")) is None


def test_edges_that_keep_in_one_folder_share_no_file_not_even_to_write_in(tmp_path: Path) -> None:
    one, other = opened(tmp_path), Memory(tmp_path, "edge-2")
    other.open("run1")
    counted(one, 2)
    counted(other, 1)
    assert value(opened(tmp_path)) == 2
    assert sorted(file.parent.name for file in tmp_path.rglob("*.safetensors")) == ["edge-1", "edge-2"]


def test_every_kind_of_tensor_is_found_again_as_it_was(tmp_path: Path) -> None:
    memory = opened(tmp_path)
    memory.propose(task(1), MODEL)
    memory.heard(receipt(1))
    assert same_tensors(opened(tmp_path).now, MODEL)


def test_coming_back_to_a_run_after_another_one_finds_it_again(tmp_path: Path) -> None:
    memory = counted(opened(tmp_path), 2)
    memory.open("run2")
    memory.open("run1")
    assert value(memory) == 2


@pytest.mark.parametrize("rounds", [1, 3])
def test_what_was_taken_back_is_not_found_by_a_new_process(tmp_path: Path, rounds: int) -> None:
    memory = counted(opened(tmp_path), rounds)
    memory.heard(receipt(rounds, code=ABANDONED))
    assert value(opened(tmp_path)) == value(memory) == (rounds - 1 or None)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_round_that_is_asked_again_is_told_from_a_new_one_by_a_new_process_too(tmp_path: Path, rounds: int) -> None:
    counted(opened(tmp_path), rounds)
    assert opened(tmp_path).at(rounds + 1)["c"] == rounds
    again = opened(tmp_path)
    assert again.at(rounds).get("c") == (rounds - 1 or None)
    trained(again, rounds).heard(receipt(rounds))
    assert value(opened(tmp_path)) == rounds


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, None])
def test_a_damaged_file_is_named_in_a_sentence_with_what_to_do(tmp_path: Path, damage: bytes | None) -> None:
    counted(opened(tmp_path), 2)
    file = tmp_path / "run1" / "edge-1" / "memory.safetensors"
    file.write_bytes(file.read_bytes()[:-3] if damage is None else damage)
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith(f"cannot read {file}: ")
    assert sentence.endswith("; delete it to begin with nothing remembered")
    assert "\n" not in sentence
    file.unlink()
    assert value(opened(tmp_path)) is None


def test_a_file_of_something_else_is_damaged_too(tmp_path: Path) -> None:
    folder = tmp_path / "run1" / "edge-1"
    folder.mkdir(parents=True)
    write_tensors(folder / "memory.safetensors", of(1.0))
    with pytest.raises(ConfigError, match=r"memory\.safetensors was not written by an edge; delete it to begin with"):
        opened(tmp_path)


def test_a_folder_that_cannot_be_written_is_named_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("a file")
    with pytest.raises(ConfigError, match=r"^cannot keep what edge-1 remembers in .*keep: ") as caught:
        trained(opened(tmp_path / "keep"), 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("run", ["../elsewhere", "..", "/elsewhere", "a/b", "."])
def test_a_hub_cannot_have_an_edge_write_beside_its_folder(tmp_path: Path, run: str) -> None:
    memory = Memory(tmp_path / "keep", "edge-1")
    with pytest.raises(ConfigError, match=r"^the hub calls its run '.*', which cannot be the name of a folder$"):
        memory.open(run)
    Memory(edge="edge-1").open(run)  # one that keeps nothing does not mind


def test_a_hub_that_forgot_the_newest_round_says_which_was_the_last_to_count() -> None:
    memory = counted(opened(), 3)
    memory.heard(receipt(2))
    assert value(memory) == 2
    memory.heard(receipt(2))
    assert value(memory) == 2


def test_that_another_try_at_the_same_round_counted_takes_this_one_back() -> None:
    memory = trained(counted(opened(), 2), 3)
    memory.heard(receipt(3))
    memory.heard(receipt(3, attempt=2))  # made by another process of this name
    assert value(memory) == 2
