"""Forgives doubled slashes in front of a path: an SDK joins an endpoint that ends with one and a path that begins with
one.
"""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class SingleSlash:
    """WSGI middleware for the paths under one prefix."""

    def __init__(self, app: WSGIApplication, prefix: str) -> None:
        self._app = app
        self._doubled = "/" + prefix

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Passes the request on, its path with one slash in front."""
        path = environ.get("PATH_INFO", "")
        if path.startswith("//") and ("/" + path.lstrip("/")).startswith(self._doubled[1:] + "/"):
            environ["PATH_INFO"] = "/" + path.lstrip("/")
        return self._app(environ, start_response)
