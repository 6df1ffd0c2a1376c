"""Updates of many edges into one exact sum, beside raw TCP: `python -m tests.benchmarks.fanin`."""

import argparse
import statistics

from tests.benchmarks.raw import raw
from tests.benchmarks.stage import PARAMETERS, Crowd, crowd


def main() -> None:
    """Print a line with all edges alike, and one with a slow one among them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=100)
    parser.add_argument("--parameters", type=int, default=PARAMETERS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    least, alike = list[float](), list[Crowd]()
    slow: dict[int, list[Crowd]] = {1: [], 3: []}
    for _ in range(chosen.repeats):
        least.append(raw(edges=chosen.edges, down=0, up=4 * chosen.parameters).seconds)
        alike.append(crowd(edges=chosen.edges, parameters=chosen.parameters, rounds=chosen.rounds))
        for count, crowds in slow.items():
            crowds.append(crowd(edges=chosen.edges, parameters=chosen.parameters, rounds=2, slow=count))
    floor = statistics.median(least)
    found = statistics.median(second for one in alike for second in one.back)
    print(f"{chosen.edges} edges x {chosen.parameters:,} float32, all at once, from the first byte to the last sum")
    print(f"raw TCP                            {floor * 1e3:8.0f} ms")
    print(f"Fedhub                             {found * 1e3:8.0f} ms   {floor / found:.2f} of raw TCP")
    print(f"hub's memory above its start       {statistics.median(one.hub.above for one in alike):8.1f} MB")
    loop, hub, edges = (
        statistics.median(getattr(one.hub, part) for one in alike) for part in ("loop", "cpu", "edges_cpu")
    )
    print(f"processor, the round's fan-out included: event loop {loop * 1e3:.0f} ms, the hub's other threads")
    print(f"    {(hub - loop) * 1e3:.0f} ms, all edges {edges * 1e3:.0f} ms")
    for count, crowds in slow.items():
        others = statistics.median(second for one in crowds for second in one.others)
        last = statistics.median(second for one in crowds for second in one.back)
        print(f"{count} of them on lines of 1 MB/s, which begin 0.2 s earlier: the others are in the sum after")
        print(f"                                   {others * 1e3:8.0f} ms, the slow after {last * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
