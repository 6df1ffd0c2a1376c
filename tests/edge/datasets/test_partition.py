"""However data are dealt out, each example has exactly one owner and nobody goes without."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.datasets.partition import Partition, by_key, dirichlet, iid, partition, quantity, shards
from shared.errors import ConfigError

LABELS = np.arange(2000) % 10  # 200 examples of each of ten labels
specs = st.one_of(
    st.just("iid"),
    st.integers(1, 4).map(lambda per_edge: f"shards:{per_edge}"),
    st.floats(1e-6, 1e6).map(lambda alpha: f"dirichlet:{alpha}"),
    st.floats(1e-6, 1e6).map(lambda alpha: f"quantity:{alpha}"),
)
label_lists = st.lists(st.integers(0, 9), min_size=40, max_size=200).map(np.array)
seeds = st.integers(0, 2**32)


def labels_seen(parts: Partition, labels: npt.NDArray[np.int64] = LABELS) -> list[int]:
    return [len(np.unique(labels[part])) for part in parts]


@settings(deadline=None)
@given(spec=specs, labels=label_lists, edges=st.integers(1, 10), seed=seeds)
def test_every_example_belongs_to_exactly_one_edge_and_no_edge_is_empty(
    spec: str, labels: npt.NDArray[np.int64], edges: int, seed: int
) -> None:
    parts = partition(spec, labels, edges, seed=seed)
    assert len(parts) == edges
    assert all(len(part) for part in parts)
    assert {part.dtype for part in parts} == {np.dtype(np.int64)}
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))


@settings(deadline=None)
@given(spec=specs, labels=label_lists, edges=st.integers(1, 10), seed=seeds)
def test_the_same_seed_gives_the_same_parts(spec: str, labels: npt.NDArray[np.int64], edges: int, seed: int) -> None:
    once, again = (partition(spec, labels, edges, seed=seed) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("spec", ["iid", "shards:2", "dirichlet:0.5", "quantity:0.5"])
def test_another_seed_gives_other_parts(spec: str) -> None:
    one, other = (partition(spec, LABELS, 10, seed=seed) for seed in (1, 2))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("spec", ["iid", "shards:1", "dirichlet:0.001", "quantity:0.001"])
def test_as_many_edges_as_examples_get_one_example_each(spec: str) -> None:
    assert [len(part) for part in partition(spec, LABELS, len(LABELS), seed=0)] == [1] * len(LABELS)


@given(n=st.integers(1, 500), edges=st.integers(1, 50), seed=seeds)
def test_iid_sizes_differ_by_one_at_most(n: int, edges: int, seed: int) -> None:
    if n >= edges:
        sizes = [len(part) for part in iid(n, edges, seed=seed)]
        assert max(sizes) - min(sizes) <= 1


def test_iid_shows_every_edge_every_label() -> None:
    assert labels_seen(iid(len(LABELS), 10, seed=0)) == [10] * 10


def test_two_shards_show_an_edge_two_labels_at_most() -> None:
    parts = shards(LABELS, 10, seed=0)
    assert max(labels_seen(parts)) <= 2
    assert [len(part) for part in parts] == [200] * 10


def test_one_shard_each_of_as_many_edges_as_labels_is_one_label_each() -> None:
    assert labels_seen(shards(LABELS, 10, per_edge=1, seed=0)) == [1] * 10


def test_a_small_dirichlet_alpha_skews_labels_and_a_large_one_does_not() -> None:
    def largest_share(alpha: float) -> float:
        """The commonest label's share of an edge's examples, averaged over 20 edges; 0.1 is perfectly mixed."""
        parts = dirichlet(LABELS, 20, alpha=alpha, seed=0)
        return float(np.mean([np.bincount(LABELS[part]).max() / len(part) for part in parts]))

    assert largest_share(0.05) > 0.7
    assert 0.3 < largest_share(0.5) < 0.7
    assert largest_share(1000) < 0.2


def test_a_small_quantity_alpha_skews_sizes_but_not_labels() -> None:
    parts = quantity(len(LABELS), 10, alpha=0.3, seed=0)
    sizes = [len(part) for part in parts]
    assert max(sizes) > 5 * sorted(sizes)[4]
    assert labels_seen(parts)[int(np.argmax(sizes))] == 10
    assert max(len(part) for part in quantity(len(LABELS), 10, alpha=1000, seed=0)) < 230


@given(keys=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60))
def test_by_key_gives_each_key_an_edge_of_its_own(keys: list[str]) -> None:
    parts = by_key(keys)
    assert [{keys[index] for index in part} for part in parts] == [{key} for key in sorted(set(keys))]
    assert sorted(np.concatenate(parts)) == list(range(len(keys)))


def test_by_key_deals_keys_round_robin_and_never_parts_a_key() -> None:
    parts = by_key(["ann", "bob", "ann", "cy", "dee", "cy"], 2)
    assert [part.tolist() for part in parts] == [[0, 2, 3, 5], [1, 4]]


@given(keys=st.lists(st.integers(0, 30), min_size=1, max_size=60), edges=st.integers(1, 40))
def test_by_key_leaves_nothing_out_and_no_edge_empty_and_deals_evenly_many_keys(keys: list[int], edges: int) -> None:
    if edges <= len(set(keys)):
        parts = by_key(keys, edges)
        held = [{keys[index] for index in part} for part in parts]
        assert sorted(np.concatenate(parts)) == list(range(len(keys)))
        assert sum(map(len, held)) == len(set(keys))
        assert max(map(len, held)) - min(map(len, held)) <= 1
        assert {part.dtype for part in parts} == {np.dtype(np.int64)}
        assert all(part.tolist() == sorted(part) for part in parts)


def test_a_key_is_named_like_any_partition_and_asked_for_only_then() -> None:
    def fail() -> list[int]:
        raise AssertionError

    parts = partition(" Writer ", LABELS, 10, seed=0, writer=lambda: LABELS, phone=fail)
    assert all(map(np.array_equal, parts, by_key(LABELS)))
    assert len(partition("iid", LABELS, 10, seed=0, writer=fail)) == 10
    with pytest.raises(ConfigError, match=r"'writers'; did you mean writer[?] write for .*, quantity:0.5 or writer$"):
        partition("writers", LABELS, 10, seed=0, writer=fail)
    with pytest.raises(ConfigError, match=r"there is no partition 'writer:2'; did you mean writer[?]"):
        partition("writer:2", LABELS, 10, seed=0, writer=fail)
    with pytest.raises(ConfigError, match=r"^10 writers are too few for 11 edges, 1 each; take fewer edges$"):
        partition("writer", LABELS, 11, seed=0, writer=lambda: LABELS)


def test_a_text_means_what_the_function_of_that_name_does() -> None:
    def same(spec: str, parts: Partition) -> bool:
        return all(map(np.array_equal, partition(spec, LABELS, 10, seed=3), parts))

    assert same("iid", iid(len(LABELS), 10, seed=3))
    assert same("shards", shards(LABELS, 10, seed=3))
    assert same(" Shards:3 ", shards(LABELS, 10, per_edge=3, seed=3))
    assert same("dirichlet:0.3", dirichlet(LABELS, 10, alpha=0.3, seed=3))
    assert same("quantity:2", quantity(len(LABELS), 10, alpha=2, seed=3))


@pytest.mark.parametrize(
    ("spec", "advice"),
    [
        ("dirichet:0.3", "did you mean dirichlet?"),
        ("shard", "did you mean shards?"),
        ("iid:3", "did you mean iid?"),
        ("", "write for example iid, shards:2, dirichlet:0.3 or quantity:0.5"),
        ("dirichlet", "like dirichlet:0.3 needs a number after the colon, not ''"),
        ("quantity:much", "like quantity:0.5 needs a number after the colon, not 'much'"),
        ("shards:2.5", "like shards:2 needs a whole number after the colon, not '2.5'"),
        ("shards:0", "an edge cannot hold 0 shards; write 1 or more"),
        ("dirichlet:-1", "a Dirichlet alpha is above 0"),
        ("quantity:nan", "a Dirichlet alpha is above 0"),
        ("dirichlet:inf", "a Dirichlet alpha is above 0"),
    ],
)
def test_a_mistyped_text_is_answered_with_what_to_write(spec: str, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        partition(spec, LABELS, 10, seed=0)
    assert advice in str(caught.value)


@pytest.mark.parametrize("spec", ["iid", "shards:1", "dirichlet:1", "quantity:1"])
def test_more_edges_than_examples_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="10 examples are too few for 11 edges"):
        partition(spec, LABELS[:10], 11, seed=0)


def test_what_else_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 edges"):
        iid(10, 0, seed=0)
    with pytest.raises(ConfigError, match="10 examples are too few for 6 edges, 2 each"):
        shards(LABELS[:10], 6, seed=0)
    with pytest.raises(ConfigError, match="2 different keys are too few for 3 edges"):
        by_key(["a", "b", "a"], 3)
