"""A few pages are made at a time, and none for a browser that has left."""

import asyncio

from jobs.browser.turns import AT_ONCE, Turns

HERE, LEFT = {"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}


def test_requests_wait_for_their_turn_and_those_of_browsers_that_left_are_not_answered():
    begun = []

    async def ask_all() -> None:
        release = asyncio.Event()

        async def app(scope, receive, send) -> None:
            begun.append(scope["path"])
            await release.wait()

        turns = Turns(app)

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

    asyncio.run(ask_all())
    assert begun[AT_ONCE:] == ["late"]
