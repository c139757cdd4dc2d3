"""One turn of a configuration, and turns of many, one after the other, round by round."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import cpu, figures, machine, statements, wrk
from bench.rows import STATEMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.stacks import BenchStack, Say

WARM_UP_SECONDS = 1.0
"""Orders before each turn that do not count: a stack that was idle has cold caches and connections to make."""

PAUSES_SECONDS = 1.5
"""What a turn takes beside that, about: the login, and the wait until the stack has nothing left to do."""


def turn(stack: BenchStack, clients: int, seconds: float, name: str | None = None) -> dict[str, Any]:
    """Load one stack for a while, and say how fast it was and what it spent.

    Processor time counts until the stack has nothing left to do, so with the spans that were sent afterwards.

    Args:
        stack: The stack.
        clients: How many wait for their answers at once.
        seconds: How long.
        name: The record's `row`; the stack's if not given.

    Raises:
        BenchError: An order was not answered with 201.
    """
    token = stack.token()
    if WARM_UP_SECONDS:
        wrk.run(stack.gateway, token, clients, WARM_UP_SECONDS)
    stack.settled()
    with stack.scraped():
        before, (busy, there) = cpu.seconds(stack.parts), cpu.machine()
        result = wrk.run(stack.gateway, token, clients, seconds)
        during, (busy_then, there_then) = cpu.seconds(stack.parts), cpu.machine()
        stack.settled()
        after = cpu.seconds(stack.parts)
    parts = {name: (after[name] - before[name]) * 1000 / result.orders for name in after}
    busy, there = busy_then - busy, there_then - there
    ours = sum(during.values()) - sum(before.values()) + result.cpu_seconds
    return {
        "row": name or stack.row.name,
        "orders": result.orders,
        "per_second": result.orders / result.seconds,
        "p50_ms": result.p50_ms,
        "p95_ms": result.p95_ms,
        "p99_ms": result.p99_ms,
        "max_ms": result.max_ms,
        "cpu_ms": sum(parts.values()),
        "parts_cpu_ms": parts,
        "generator_cpu_ms": result.cpu_seconds * 1000 / result.orders,
        "machine_busy": busy / there,
        "others_busy": max(0.0, (busy - ours) / there),
    }


def database_turn(stack: BenchStack, clients: int, seconds: float) -> dict[str, Any]:
    """Load a stack's database alone, with an order's statements."""
    stack.settled()
    before = cpu.seconds(stack.parts)
    speed = statements.run(stack.ports["ORDER_DB"], stack.run_dir / "secrets" / "orders_user", clients, seconds)
    after = cpu.seconds(stack.parts)
    orders = speed["per_second"] * seconds
    spent = (after["order-db"] - before["order-db"]) * 1000 / orders
    return {
        "row": STATEMENTS,
        "orders": round(orders),
        "per_second": speed["per_second"],
        "mean_ms": speed["mean_ms"],
        "cpu_ms": spent,
        "parts_cpu_ms": {"order-db": spent},
    }


def interleaved(
    turns: Mapping[str, Callable[[], dict[str, Any]]],
    rounds: int,
    say: Say,
    records: list[dict[str, Any]],
    *,
    noisy: bool = False,
) -> None:
    """Take turns: each round has one of each, and begins with another. A round that others disturbed is made again.

    Args:
        turns: What to do, by its name.
        rounds: How often.
        say: Is told how far it is.
        records: Takes what the turns of whole rounds give, each with its `round`: that counts if this is cut short.
        noisy: Whether a disturbed round counts too.

    Raises:
        BenchError: More rounds were disturbed than are wanted.
    """
    disturbed = number = 0
    while number < rounds:
        found = []
        for name in figures.rotated(list(turns), number):
            record = turns[name]() | {"round": number}
            found.append(record)
            say(
                f"round {number + 1} of {rounds}: {name:<12} {record['per_second']:8.0f} orders/s"
                f" {record['cpu_ms']:7.2f} ms of CPU an order"
            )
        busiest = max(record.get("others_busy", 0.0) for record in found)
        if busiest > machine.QUIET and not noisy:
            disturbed += 1
            if disturbed > rounds:
                machine.refuse_noise(busiest)
            say(f"other programs had {busiest:.0%} of the machine in this round: it is made again")
            continue
        records += found
        number += 1


def turns_of(
    stacks: Mapping[str, BenchStack], clients: int, seconds: float, *, with_statements: bool = False
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Give a turn of each stack; of the SQL statements alone too, if wanted, in the first one's database."""
    turns: dict[str, Callable[[], dict[str, Any]]] = {
        name: partial(turn, stack, clients, seconds) for name, stack in stacks.items()
    }
    if with_statements:
        turns[STATEMENTS] = partial(database_turn, next(iter(stacks.values())), clients, seconds)
    return turns


def expected_seconds(stacks: int, turns: int, rounds: int, seconds: float) -> float:
    """Estimate how long a comparison takes."""
    return 12.0 * stacks + rounds * turns * (seconds + WARM_UP_SECONDS + PAUSES_SECONDS)


def idle(stacks: Sequence[BenchStack], seconds: float = 2.0) -> float:
    """Give what all stacks together take of one processor while nothing is asked of them."""
    began, before = time.monotonic(), sum(sum(cpu.seconds(stack.parts).values()) for stack in stacks)
    time.sleep(seconds)
    spent = sum(sum(cpu.seconds(stack.parts).values()) for stack in stacks) - before
    return spent / (time.monotonic() - began)
