"""The application. The guard checks each request before a page gets it."""

import asyncio
import secrets
import sys
import traceback
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from jobs.browser.models import Models
from jobs.browser.pages import HERE, Pages, render
from jobs.browser.sections import SECTIONS
from jobs.browser.security import Guard
from jobs.browser.targets import Targets
from jobs.browser.turns import AT_ONCE, Turns
from jobs.support.errors import BUG, describe

FIRST_PAGES: dict[str, str] = {kind: section.name for section in reversed(SECTIONS) for kind in section.of}


def new_token() -> str:
    """Return a random word of 128 bits for the address of the pages."""
    return secrets.token_urlsafe(16)


def build_app(targets: Targets, token: str, host: str) -> Guard:
    """Return the application. host: the address that it will be served on."""
    routes: Sequence[BaseRoute] = [
        Route("/", home),
        Mount("/static", StaticFiles(directory=HERE / "static")),
        *_routes(),
    ]
    app = Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        exception_handlers={HTTPException: not_found},
        middleware=[
            Middleware(ExceptionMiddleware, handlers={Exception: failed})  # Starlette's own would raise it again
        ],
    )
    app.state.targets = targets
    app.state.sections = SECTIONS
    app.state.models = Models()
    app.state.first_pages = FIRST_PAGES
    app.state.pages = Pages(token)
    app.state.bugs = {}
    return Guard(app, token, host)


def _routes() -> list[Route]:
    """Return the routes of all sections. Slow pages take turns of their own."""
    quick, slow = (Middleware(Turns, asyncio.Semaphore(count)) for count in (AT_ONCE, 1))
    return [
        Route(f"/{{key}}/{path}", endpoint, middleware=[slow if path in section.slow else quick])
        for section in SECTIONS
        for path, endpoint in section.routes
    ]


def home(request: Request) -> Response:
    """List the data sets, runs and models. If the command names only one, go to its first page."""
    targets: Targets = request.app.state.targets
    if len(targets.given) == 1:
        key = targets.given[0]
        return RedirectResponse(f"{request.app.state.pages.root}/{key}/{FIRST_PAGES[key[0]]}")
    return render(request, "home.html.j2")


def not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    missing = request.url.path.removeprefix(request.app.state.pages.root)
    message = f"the page {missing} does not exist" if error.detail == "Not Found" else error.detail
    return _error_page(request, error.status_code, message)


def failed(request: Request, error: Exception) -> Response:
    """Show an error as a command prints it. A bug has the status 500, and its traceback is in a file, once."""
    bugs: dict[str, str] = request.app.state.bugs
    place = "".join(traceback.format_tb(error.__traceback__))
    if place in bugs:
        return _error_page(request, 500, bugs[place])
    message, status = describe("bertloom browse", error)
    if status != BUG:
        return _error_page(request, 400, message)
    print(f"bertloom browse: error: {message}", file=sys.stderr, flush=True)
    bugs[place] = message
    return _error_page(request, 500, message)


def _error_page(request: Request, status: int, message: str) -> Response:
    """Return a page with a message, or, where a script asked for a part of a page, the message alone."""
    template = "error_message.html.j2" if "hx-request" in request.headers else "error.html.j2"
    return render(request, template, status, message=message)
