"""How the pages of this folder become a site: Sphinx reads them as Markdown, by MyST. ``make docs`` builds it."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

project = "Sendtide"
author = "the Sendtide authors"
project_copyright = "the Sendtide authors, Apache-2.0"
release = installed("sendtide")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "Sendtide"
html_static_path: list[str] = []
html_show_sphinx = False
html_theme_options: dict[str, Any] = {
    # Fonts and icons come from this site alone: it also works offline.
    "light_css_variables": {"color-brand-primary": "#0b6e6e", "color-brand-content": "#0b6e6e"},
    "dark_css_variables": {"color-brand-primary": "#4fc3c3", "color-brand-content": "#4fc3c3"},
}
