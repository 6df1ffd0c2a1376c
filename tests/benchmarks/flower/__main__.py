"""What a round costs Flower: `python -m tests.benchmarks.flower`."""

import argparse
import signal
import sys

from tests.benchmarks import flower


def main() -> None:
    """Measure both paths, and print a table."""
    paths = {"grpc": flower.grpc, "deployment": flower.deployment}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=1_663_370)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--paths", nargs="+", choices=paths, default=list(paths))
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that Flower's processes end with this one
    print(f"Flower {flower.VERSION}: {chosen.edges} clients x {chosen.parameters:,} float32, {chosen.rounds} rounds")
    for name in chosen.paths:
        try:
            found = paths[name](edges=chosen.edges, parameters=chosen.parameters, rounds=chosen.rounds)
        except (flower.FlowerFailed, ValueError) as error:
            sys.exit(str(error))
        print(
            f"{name:12} {found.seconds:9.3f} s a round {found.cpu:9.2f} CPU s a round {found.peak / 1e6:9.1f} MB server"
        )


if __name__ == "__main__":
    main()
