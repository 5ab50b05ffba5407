"""The application: all pages behind the guard."""

import secrets
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from bertloom.store_errors import StoreError
from jobs.browser.pages import HERE, Pages, render
from jobs.browser.sections import SECTIONS
from jobs.browser.security import Guard
from jobs.browser.targets import Targets


def new_token() -> str:
    """Return a random word of 128 bits for the address of the pages."""
    return secrets.token_urlsafe(16)


def build_app(targets: Targets, token: str, host: str) -> ASGIApp:
    """Return the application. host: the address that it will be served on."""
    routes: Sequence[BaseRoute] = [
        Route("/", home),
        Mount("/static", StaticFiles(directory=HERE / "static")),
        *(Route(f"/{{key}}/{path}", endpoint) for section in SECTIONS for path, endpoint in section.routes),
    ]
    handlers = {ValueError: wrong_value, OSError: wrong_value, StoreError: wrong_value, HTTPException: not_found}
    app = Starlette(routes=[Mount(f"/{token}", routes=routes)], exception_handlers=handlers)
    app.state.targets = targets
    app.state.sections = SECTIONS
    app.state.pages = Pages(token)
    return Guard(app, token, host)


def home(request: Request) -> Response:
    """List what can be looked at; with a single data set or run, go there."""
    targets: Targets = request.app.state.targets
    keys = [*targets.data_sets, *targets.runs]
    if len(keys) == 1:
        first = next(section for section in SECTIONS if section.of == keys[0][0])
        return RedirectResponse(f"{request.app.state.pages.root}/{keys[0]}/{first.name}")
    return render(request, "home.html.j2")


def wrong_value(request: Request, error: Exception) -> Response:
    """Show an error about a value in the address or about a file, as a command prints it."""
    return render(request, "error.html.j2", 400, message=str(error))


def not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return render(request, "error.html.j2", error.status_code, message=error.detail)
