"""Transcripts of several sqlite3 shells at once: what is typed into each, and what it must print.

    # a comment
    writer> SELECT 1;
    1
    reader~ SELECT count(*) FROM t;
    3

An error's line number is printed as `-`. `name>` types a line into the shell of that name, which starts when it is first mentioned; the lines
below are what it must print. `name~` types the line again and again, for as long as two poll intervals,
until it prints that. `$NAME` is replaced from `variables`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from .shell import Shell
from .wait import until

_INPUT = re.compile(r"(\w+)([>~]) (.*)")


@dataclass
class Step:
    """One input line and the output it must have."""

    line: int
    shell: str
    poll: bool
    text: str
    expected: list[str] = field(default_factory=list)


def parse(source: str) -> list[Step]:
    """The steps of a transcript."""
    steps: list[Step] = []
    for number, line in enumerate(source.splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        if match := _INPUT.fullmatch(line):
            steps.append(Step(number, match[1], match[2] == "~", match[3]))
        else:
            steps[-1].expected.append(line)
    return steps


def play(path: Path, start: Callable[[], Shell], variables: dict[str, str], poll_seconds: float) -> None:
    """Plays a transcript; an AssertionError names the first line that goes otherwise."""
    shells: dict[str, Shell] = {}
    for step in parse(Template(path.read_text()).substitute(variables)):
        if step.shell not in shells:
            shells[step.shell] = start()
        shell, expected = shells[step.shell], "\n".join(step.expected)
        where = f"{path.name}:{step.line}: {step.shell}> {step.text}"
        if step.poll:
            until(lambda: _output(shell, step) == expected, 2 * poll_seconds, where)
        else:
            got = _output(shell, step)
            assert got == expected, f"{where}\nmust print {expected!r}\nprinted    {got!r}"


def _output(shell: Shell, step: Step) -> str:
    return re.sub(r"\bnear line \d+", "near line -", shell.run(step.text))
