"""Load test with fifty users for a minute: `make load` starts the app as a user does, and writes reports/load.

Every user searches with unique queries, like the page. Five of them also open every query on the tab Trajectory, two
look at the tab Modality gap instead, and five search through the API.
"""

import argparse
import asyncio
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from dits.common.files import write_json
from tests.benchmarks.load_client import Answer, Page, RefusedError, Visitor, sentences
from tests.conftest import first_answer, serve
from ui.runtime.queue import MAX_SESSIONS

REPORT = Path(__file__).resolve().parents[2] / "reports" / "load" / "results.json"

THINKING = {"with a pause of 1 to 3 seconds": (1.0, 3.0), "without a pause": (0.0, 0.0)}
"""Pauses of the users between searches, in seconds."""

LOOKING = 8.0
"""Seconds that a user looks at an analysis tab before the next event."""

TRAJECTORIES, GAPS, CALLS = 5, 2, 5
"""Number of users of the tab Trajectory, of the tab Modality gap, and of the API."""


@dataclass
class Measured:
    """Results of the users' requests: seconds by kind, number of errors by message, and ranks in the queue."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    ranks: list[int] = field(default_factory=list)

    async def ask(self, what: str, request: Awaitable[Any]) -> None:
        """Await the answer, and record its time."""
        begun = time.perf_counter()
        try:
            answer = await request
        except (RefusedError, OSError, asyncio.IncompleteReadError) as error:
            self.errors[f"{what}: {str(error)[:160]}"] += 1
            await asyncio.sleep(0.5)
        else:
            self.seconds.setdefault(what, []).append(time.perf_counter() - begun)
            if isinstance(answer, Answer) and answer.rank is not None:
                self.ranks.append(answer.rank)

    def summary(self, seconds: float) -> dict[str, Any]:
        """Statistics over a duration in seconds."""
        return {
            what: {
                "answers": len(took),
                "per second": round(len(took) / seconds, 1),
                **{f"p{share} ms": round(1000 * float(np.percentile(took, share))) for share in (50, 95, 99)},
                "longest ms": round(1000 * max(took)),
            }
            for what, took in sorted(self.seconds.items())
        } | {
            "errors": dict(self.errors),
            "longest queue": max(self.ranks, default=0) + 1,
        }


class Person:
    """A user of the page; the number among all users decides what the user does."""

    def __init__(self, url: str, number: int, texts: Iterator[str], measured: Measured) -> None:
        self._visitor, self._number, self._texts, self._measured = Visitor(url), number, texts, measured
        self._random = Random(number)
        self._gaps = iter(_gap_settings(self._random))
        self._page: Page | None = None

    async def open(self) -> None:
        """Open the page and wait for its first ranking; the first user also starts the computation of the gap tab."""
        await asyncio.sleep(self._random.uniform(0, 5))
        await self._visitor.get("/")
        self._page = await self._visitor.open()
        await self._search()
        if self._number == 0:
            await self._visitor.ask(self._page.named("warm"), {})
        for tab in ("trajectory-method", "gap-first")[: 2 * (self._number < TRAJECTORIES + GAPS)]:
            await self._visitor.ask(self._page.event(None, "select", tab), {})

    async def stay(self, until: float, thinking: tuple[float, float]) -> None:
        """Repeat the actions of this user until a time of the loop's clock."""
        doing = self._doing(thinking)
        while asyncio.get_running_loop().time() < until:
            await doing()

    async def close(self) -> None:
        await self._visitor.close()

    def _doing(self, thinking: tuple[float, float]) -> Callable[[], Awaitable[None]]:
        async def search() -> None:
            await asyncio.sleep(self._random.uniform(*thinking))
            await self._measured.ask("search", self._search())

        async def follow() -> None:
            text = next(self._texts)
            await self._measured.ask("search", self._search(text))
            await self._measured.ask("trajectory", self._trajectory(text))
            await asyncio.sleep(LOOKING)

        async def gap() -> None:
            await self._measured.ask("gap tab", self._gap())
            await asyncio.sleep(LOOKING)

        async def call() -> None:
            await asyncio.sleep(self._random.uniform(*thinking))
            await self._measured.ask("search by API", self._visitor.call("search", next(self._texts), "dits", 8, False))

        kinds = [follow] * TRAJECTORIES + [gap] * GAPS + [call] * CALLS
        return kinds[self._number] if self._number < len(kinds) else search

    async def _search(self, text: str | None = None) -> Answer:
        assert self._page is not None
        event = self._page.event("query", "submit", "results")
        answer = await self._visitor.ask(event, {"query": text or next(self._texts)})
        assert str(answer.data[0]).count('class="card"') == 8
        return answer

    async def _trajectory(self, text: str) -> Answer:
        assert self._page is not None
        event = self._page.event("trajectory-query", "submit", "trajectory-numbers")
        return await self._visitor.ask(event, {"trajectory-query": text, "trajectory-method": "dits"})

    async def _gap(self) -> Answer:
        assert self._page is not None
        event = self._page.event("gap-split", "input", "gap-numbers")
        return await self._visitor.ask(event, next(self._gaps))


def _gap_settings(random: Random) -> list[dict[str, Any]]:
    """Settings of the gap tab: the initial ones, then the others in random order."""
    sides = ("mean", "pooled")
    made = [
        {"gap-split": split, "gap-first": "dits", "gap-second": second, "gap-side": side, "gap-view": "Linear"}
        for split, second, side in product(("test", "validation"), ("dits-l2", "shift", "xpool", "mean"), sides)
    ]
    return [made[0], *random.sample(made[1:], len(made) - 1)]


async def crowd(url: str, process: int, people: int, seconds: float, thinking: tuple[float, float]) -> dict[str, Any]:
    """Simulate `people` users for `seconds`, after all have opened the page."""
    measured, opening = Measured(), Measured()
    texts = sentences(seed=int(time.time()))
    crowd = [Person(url, number, texts, measured) for number in range(people)]
    before = _memory(process)
    await asyncio.gather(*(opening.ask("opening", person.open()) for person in crowd))
    used, own, during = _processor(process), time.process_time(), []
    until = asyncio.get_running_loop().time() + seconds

    async def watch() -> None:
        while True:
            during.append(_memory(process))
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    begun = time.perf_counter()
    await asyncio.gather(*(person.stay(until, thinking) for person in crowd))
    took = time.perf_counter() - begun
    watching.cancel()
    cores = {"app": (_processor(process) - used) / took, "clients": (time.process_time() - own) / took}
    await asyncio.gather(*(person.close() for person in crowd))
    await asyncio.sleep(2)
    return {
        "people": people,
        "seconds": round(took, 1),
        "opened with errors": dict(opening.errors),
        **measured.summary(took),
        "cores used": {name: round(share, 2) for name, share in cores.items()},
        "memory MB": {"before": before, "highest": max(during), "after": _memory(process)},
    }


async def many(url: str, process: int, people: int, queries: int) -> dict[str, Any]:
    """Run `queries` searches by users without pauses, half of them through the API; record the memory meanwhile."""
    measured, texts, along = Measured(), sentences(), []
    visitors = [Visitor(url) for _ in range(people)]
    done = 0

    async def search(number: int, visitor: Visitor) -> None:
        nonlocal done
        event = (await visitor.open()).event("query", "submit", "results")
        while done < queries:
            done += 1
            if done % max(1, queries // 20) == 1:
                along.append({"query": done, "MB": _memory(process)})
            text = next(texts)
            request = (
                visitor.ask(event, {"query": text}) if number % 2 else visitor.call("search", text, "dits", 8, False)
            )
            await measured.ask("search" if number % 2 else "search by API", request)
        await visitor.close()

    begun = time.perf_counter()
    await asyncio.gather(*(search(number, visitor) for number, visitor in enumerate(visitors)))
    took = time.perf_counter() - begun
    along.append({"query": done, "MB": _memory(process)})
    return {"queries": done, "people": people, "seconds": round(took, 1), **measured.summary(took), "memory": along}


def _memory(process: int) -> int:
    """Memory of a process and its descendants in megabytes."""
    pages = sum(int(Path(f"/proc/{number}/statm").read_text().split()[1]) for number in _family(process))
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def _processor(process: int) -> float:
    """CPU seconds of a process and its descendants."""
    fields = [Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split() for number in _family(process)]
    return sum(int(of[11]) + int(of[12]) for of in fields) / os.sysconf("SC_CLK_TCK")


def _family(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [process, *(member for child in children for member in _family(child))]


def _machine() -> dict[str, Any]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load before": os.getloadavg()[0],
    }


def described(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    parts = [_HEAD]
    for name in (name for name in THINKING if name in report.get("load", {})):
        found = report["load"][name]
        rows = [
            f"| {what} | {of['answers']} | {of['p50 ms']} | {of['p95 ms']} | {of['p99 ms']} | {of['longest ms']} |\n"
            for what, of in found.items()
            if isinstance(of, dict) and "answers" in of
        ]
        wrong = sum(found["errors"].values()) + sum(found["opened with errors"].values())
        memory, cores = found["memory MB"], found["cores used"]
        parts.append(
            f"## {found['people']} people, {name}\n\n{_TABLE}{''.join(rows)}\n"
            f"Errors: {wrong}. Longest queue: {found['longest queue']}. Cores used by the app: {cores['app']}, by its "
            f"visitors: {cores['clients']}. Memory: {memory['before']} MB before, {memory['highest']} at most.\n"
        )
        parts.append(_on(report["load"]))
    if "memory" in report:
        found = report["memory"]["many queries"]
        rows = [f"| {at['query']:,} | {at['MB']:,} |\n" for at in found["memory"]]
        searches = [of for of in found.values() if isinstance(of, dict) and "answers" in of]
        parts.append(
            f"## Memory over {found['queries']:,} queries\n\n{found['people']} people without a pause, half of them "
            f"through the API, {found['seconds']:.0f} seconds: {sum(of['answers'] for of in searches):,} answers, "
            f"{sum(found['errors'].values())} errors. The last {MAX_SESSIONS:,} sessions are remembered, every call "
            f"of the API one of them.\n\n| query | MB |\n|---:|---:|\n{''.join(rows)}"
        )
        parts.append(_on(report["memory"]))
    return "\n".join(parts)


def _on(found: dict[str, Any]) -> str:
    machine = found["machine"]
    return (
        f"Measured on {found['measured']}: {machine['processor']}, {machine['cores']} cores, Python "
        f"{machine['python']}, at a load of {machine['load before']:.1f} before it began.\n"
    )


_HEAD = """# The app under load

`make load` starts the app as a user does, simulates fifty users for a minute, twice, and then measures the app's memory
over ten thousand queries. It writes this page from the numbers in [results.json](results.json). Every user searches as
the page does, with unique queries. Five of them also follow every query on the tab Trajectory, two change the view of
the tab Modality gap, and five search through the API. The users run on the same cores as the app.
"""
_TABLE = """| | answers | median, ms | 95 % within, ms | 99 % within, ms | longest, ms |
|---|---:|---:|---:|---:|---:|
"""


def main() -> None:
    """Run the load test, or the memory test with --queries, and update that part of the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load_report", description=__doc__)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--queries", type=int, help="run this number of searches instead, to measure memory")
    parser.add_argument("--out", type=Path, default=REPORT)
    args = parser.parse_args()
    found: dict[str, Any] = {"measured": time.strftime("%Y-%m-%d %H:%M"), "machine": _machine()}
    for name, measure in _measures(args).items():
        process, url = serve()
        try:
            first_answer(url)
            found[name] = asyncio.run(measure(url, process.pid))
        finally:
            process.terminate()
            process.wait(timeout=30)
        print(json.dumps({name: found[name]}, indent=1), flush=True)
    report = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report |= {"memory" if args.queries else "load": found}
    write_json(args.out, report)
    args.out.with_name("README.md").write_text(described(report), encoding="utf-8")


def _measures(args: argparse.Namespace) -> dict[str, Callable[[str, int], Any]]:
    if args.queries:
        return {"many queries": lambda url, process: many(url, process, args.people, args.queries)}
    return {
        name: lambda url, process, thinking=thinking: crowd(url, process, args.people, args.seconds, thinking)
        for name, thinking in THINKING.items()
    }


if __name__ == "__main__":
    main()
