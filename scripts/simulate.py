#!/usr/bin/env python3
"""Runs many seeds of the simulation of a primary with two replicas (src/primary/simulation), on all cores.

    scripts/simulate.py --minutes 60              as many as there is time for
    scripts/simulate.py --seeds 1000000           a million seeds
    scripts/simulate.py --seed 4711               one, again, with all that happened in it
    scripts/simulate.py --files 100000            seeds with encrypted replicas, until they sealed so many files: no content
                                                  key and no nonce comes twice in any request or file

Prints the first seed that fails, and how to run it again. A CI run has the 25 seeds of `cargo test` (`SEEDS` in
src/primary/simulation/mod.rs), which take 10 s of processor time without optimisation; `--first` skips those.
`scripts/mutations.py` shows what the simulation finds.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEST = "primary::simulation::every_seed_ends_in_what_was_committed"
KEYS = "primary::simulation::no_content_key_and_no_nonce_is_used_twice"
# The number of seeds that one process runs.
CHUNK = 100


def build(root: Path, target: Path, level: int = 2) -> Path:
    """Builds the tests of the tree at `root`, optimised, and returns their program."""
    variables = {"CARGO_TARGET_DIR": str(target), "CARGO_PROFILE_TEST_OPT_LEVEL": str(level),
                 "CARGO_PROFILE_DEV_OPT_LEVEL": str(level)}
    command = [os.environ.get("CARGO", "cargo"), "test", "--locked", "--no-run", "--lib", "--message-format=json"]
    built = subprocess.run(command, cwd=root, env=os.environ | variables, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        for line in built.stdout.splitlines():
            message = json.loads(line).get("message") if line.startswith("{") else None
            if message and message.get("level") == "error":
                print(message["rendered"], file=sys.stderr)
        raise SystemExit("the tests do not build")
    artifacts = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    return Path([a["executable"] for a in artifacts if a.get("executable")][-1])


def run_test(program: Path, test: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs one test of `program`, which must have it."""
    done = subprocess.run([program, "--exact", test, "--nocapture"], cwd=ROOT, env=os.environ | variables,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == 0 and "test result: ok. 1 passed" not in done.stdout:
        raise SystemExit(f"{program} has no test {test}")
    return done


def run(program: Path, first: int, count: int, log: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs `count` seeds from `first` on."""
    variables = {"SIMULATION_SEED": str(first), "SIMULATION_SEEDS": str(count), "RUST_BACKTRACE": "0"}
    if log:
        variables["SIMULATION_LOG"] = "1"
    return run_test(program, TEST, variables)


def seal(program: Path, first: int, files: int) -> subprocess.CompletedProcess[str]:
    """Runs seeds with encrypted replicas from `first` on until they sealed `files` files, in one process, which remembers
    all keys."""
    return run_test(program, KEYS, {"SIMULATION_SEED": str(first), "SIMULATION_FILES": str(files), "RUST_BACKTRACE": "0"})


def failing_seed(output: str) -> int | None:
    """The seed that failed, as the test says."""
    words = [line.split() for line in output.splitlines() if line.startswith("seed ") and " fails" in line]
    return int(words[0][1]) if words else None


def search(program: Path, first: int, seeds: int | None, minutes: float | None,
           workers: int) -> tuple[int, int | None, str]:
    """Runs seeds until one fails, or their number or the time is over: how many were run, the seed that failed, and what
    it said."""
    end = time.monotonic() + minutes * 60 if minutes is not None else None
    done, following, told = 0, first, time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        running: dict[Future[subprocess.CompletedProcess[str]], tuple[int, int]] = {}
        while True:
            while len(running) < workers:
                left = CHUNK if seeds is None else min(CHUNK, first + seeds - following)
                if left <= 0 or (end is not None and time.monotonic() >= end):
                    break
                running[pool.submit(run, program, following, left)] = (following, left)
                following += left
            if not running:
                return done, None, ""
            for chunk in wait(running, return_when=FIRST_COMPLETED).done:
                begin, count = running.pop(chunk)
                result = chunk.result()
                if result.returncode != 0:
                    seed = failing_seed(result.stdout)
                    return done + ((seed or begin) - begin + 1), seed if seed is not None else begin, result.stdout
                done += count
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(f"{done} seeds", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--files", type=int, help="of encrypted replicas: compare the keys of so many")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--program", type=Path, help="tests that are built already")
    arguments = parser.parse_args()
    program = arguments.program or build(ROOT, ROOT / "target" / "simulation")
    if arguments.seed is not None:
        result = run(program, arguments.seed, 1, log=True)
        print(result.stdout)
        raise SystemExit(result.returncode)
    if arguments.files is not None:
        result = seal(program, arguments.first, arguments.files)
        print(result.stdout)
        raise SystemExit(result.returncode)
    if arguments.seeds is None and arguments.minutes is None:
        arguments.minutes = 1.0
    began = time.monotonic()
    done, failed, said = search(program, arguments.first, arguments.seeds, arguments.minutes, arguments.workers)
    print(f"{done} seeds in {time.monotonic() - began:.0f} s")
    if failed is not None:
        print(said)
        raise SystemExit(f"seed {failed} fails: scripts/simulate.py --seed {failed}")


if __name__ == "__main__":
    main()
