"""The model out to many edges, beside raw TCP: `python -m tests.benchmarks.fanout`."""

import argparse
import statistics

from tests.benchmarks.raw import raw
from tests.benchmarks.stage import PARAMETERS, crowd


def main() -> None:
    """Print a line for each number of edges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--parameters", type=int, default=PARAMETERS)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    print(f"{chosen.parameters:,} float32 to each edge, from the round's opening until the last edge has them")
    print(f"{'edges':>6}{'raw TCP':>11}{'Fedhub':>11}{'of raw':>8}{'above':>10}")
    for edges in chosen.edges:
        least, ours, above = list[float](), list[float](), list[float]()
        for _ in range(chosen.repeats):
            least.append(raw(edges=edges, down=4 * chosen.parameters, up=0).seconds)
            seen = crowd(edges=edges, parameters=chosen.parameters, rounds=chosen.rounds, answer=False)
            ours.append(statistics.median(seen.out))
            above.append((seen.hub.peak_out - seen.hub.start) / 1e6)
        floor, found = statistics.median(least), statistics.median(ours)
        print(
            f"{edges:6}{floor * 1e3:9.0f}ms{found * 1e3:9.0f}ms{floor / found:8.2f}{statistics.median(above):7.1f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
