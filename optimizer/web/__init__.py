"""The HTTP side: the only home of flask and marshmallow."""

from optimizer.web.app import create_app

__all__ = ["create_app"]
