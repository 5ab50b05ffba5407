"""A few pages are made at a time, and none for a browser that has left."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from jobs.browser.app import build_app
from jobs.browser.sections import SECTIONS
from jobs.browser.targets import Targets
from jobs.browser.turns import AT_ONCE, Turns
from jobs.explain import Explainer

HERE, LEFT = {"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}


def run(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The result of a coroutine, in a thread of its own: tests of Chromium may have an event loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(function())).result()


def test_requests_wait_for_their_turn_and_those_of_browsers_that_left_are_not_answered():
    begun = []

    async def ask_all() -> None:
        release = asyncio.Event()

        async def app(scope, receive, send) -> None:
            begun.append(scope["path"])
            await release.wait()

        turns = Turns(app, asyncio.Semaphore(AT_ONCE))

        def request(path, message):
            async def receive():
                return message

            return asyncio.create_task(turns({"type": "http", "path": path}, receive, receive))

        early = [request(f"early {i}", HERE) for i in range(AT_ONCE)]
        left, late = [request("left", LEFT) for _ in range(50)], request("late", HERE)
        for _ in range(100):
            await asyncio.sleep(0)
        assert begun == [f"early {i}" for i in range(AT_ONCE)]
        release.set()
        await asyncio.gather(*early, *left, late)

    run(ask_all)
    assert begun[AT_ONCE:] == ["late"]


def test_explanations_wait_for_each_other_and_keep_no_other_page_waiting(left_out, monkeypatch):
    begun, release, explain = [], threading.Event(), Explainer.explain

    def slow(self, index):
        begun.append(index)
        release.wait()
        return explain(self, index)

    monkeypatch.setattr(Explainer, "explain", slow)
    app = build_app(Targets.open([str(left_out)], None, 1.0), "token", "127.0.0.1")

    async def ask() -> list[int]:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://127.0.0.1/token/d0/", timeout=None
        ) as client:
            explained = [asyncio.create_task(client.get(f"examples/{i}/explain")) for i in range(2 * AT_ONCE)]
            while not begun:
                await asyncio.sleep(0.01)
            assert (await client.get("examples")).status_code == 200 and begun == [0]
            release.set()
            return [(await answer).status_code for answer in explained]

    assert run(ask) == [200] * 2 * AT_ONCE


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_slow_pages_are_among_the_pages_of_their_section(section):
    assert {*section.slow} <= {path for path, _ in section.routes}
