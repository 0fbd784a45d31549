"""The versions of Personalizer's API whose answers have shapes of their own."""

from __future__ import annotations

from enum import Enum


class Version(Enum):
    """A version, or several that answer alike; the value is what their paths begin with."""

    V1_0 = ("/v1.0",)
    V1_1 = ("/v1.1-preview.1", "/v1.1-preview.2", "/v1.1-preview.3")
    #: 2022-09-01-preview, which has no version in its path.
    V2022 = ("",)
