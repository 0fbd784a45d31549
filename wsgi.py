"""The WSGI app, for gunicorn and any other server: ``wsgi:app``. Configured by ``SENDTIDE_`` variables."""

import os

from optimizer import logs
from optimizer.config import Settings
from optimizer.web import create_app

settings = Settings.from_environment(os.environ)
logs.configure(settings.log_level, settings.log_format)
app = create_app(settings)
