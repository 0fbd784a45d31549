"""Ids of other systems within a path."""

from __future__ import annotations

from werkzeug.routing import PathConverter


class AnyId(PathConverter):
    """``<path:…>`` that takes whatever can be an id: Werkzeug's own takes none that begins with a slash, nor one with a
    line break, and who is stored under such an id could be neither read nor erased."""

    part_isolating = False
    regex = r"[\s\S]+?"
