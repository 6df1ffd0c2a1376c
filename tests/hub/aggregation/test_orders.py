"""The order in which real-sized updates arrive changes no bit of their mean; 100 orders by command."""

from tests.benchmarks.orders import hashes


def test_five_orders_of_forty_updates_give_one_hash_where_a_float_sum_gives_five() -> None:
    exact, plain = hashes(orders=5, updates=40, parameters=200_000)
    assert len(exact) == 1
    assert len(plain) == 5
