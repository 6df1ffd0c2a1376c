"""Lives through many seeds, or through one again: `python -m tests.simulation --seeds 1000`, `--seed 17`."""

import argparse
import sys
import time
from collections import Counter

from tests.simulation.scale import comings_and_goings
from tests.simulation.world import replay_command, simulate


def main() -> int:
    """Run from the command line; the exit code is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="one seed only, with its log")
    parser.add_argument("--fleet", type=int, help="no seeds: so many edges, of which a tenth leaves in each round")
    parser.add_argument("--rounds", type=int, default=100, help="with --fleet: how many rounds")
    parser.add_argument("--quiet", action="store_true", help="with --seed: no log")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        report = simulate(chosen.seed)
        if not chosen.quiet:
            print("\n".join(report.log))
        print(f"trace {report.trace} · {report.rounds} rounds · {report.virtual:.0f} s in {report.real:.2f} s")
        if report.violation:
            print(f"VIOLATION {report.violation}")
        return int(report.violation is not None)
    if chosen.fleet is not None:
        report, lost = comings_and_goings(edges=chosen.fleet, rounds=chosen.rounds, leaves=0.1)
        print(f"{report.rounds} rounds, {report.accepted} updates, {lost} rounds lost, {report.violation}")
        print(f"{report.virtual:.0f} virtual seconds in {report.real:.1f} s, {time.process_time():.1f} s of processor")
        return int(report.violation is not None or lost > 0)
    began, counts, broken, rounds, virtual = time.perf_counter(), Counter[str](), 0, 0, 0.0
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        report = simulate(seed)
        counts += report.counts
        rounds += report.rounds
        virtual += report.virtual
        if report.violation:
            broken += 1
            print(f"VIOLATION {report.violation}\n  {replay_command(seed)}", flush=True)
    seconds = time.perf_counter() - began
    print(f"{chosen.seeds} seeds, {rounds} rounds, {virtual:.0f} virtual seconds in {seconds:.1f} s; {broken} broken")
    print(", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
