"""One tree of errors for what a caller can get wrong. Nothing here knows of HTTP; ``web.problems`` maps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class SendtideError(Exception):
    """Base: ``code`` is for programs, the message for people, ``errors`` says which field and what is allowed."""

    code = "error"

    def __init__(
        self, detail: str, *, code: str | None = None, errors: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.errors = {field: list(messages) for field, messages in (errors or {}).items()}


class Unreadable(SendtideError):
    """The bytes can't be read at all: broken JSON, UTF-8, or an envelope of the wrong shape."""

    code = "unreadable"


class Invalid(SendtideError):
    """Readable, but a field has a value that is not allowed."""

    code = "invalid"

    @classmethod
    def field(cls, path: str, message: str, *, code: str | None = None) -> Invalid:
        """An error of one field; the detail repeats it, for people who read only that."""
        return cls(f"{path}: {message}", code=code, errors={path: [message]})


class NotFound(SendtideError):
    """No such thing in this workspace."""

    code = "not_found"


class Gone(NotFound):
    """It was there once, and whoever asks for it should stop."""

    code = "gone"


class Conflict(SendtideError):
    """The request contradicts what is stored: an id used with another body, a status that doesn't allow it."""

    code = "conflict"


class PreconditionFailed(SendtideError):
    """``If-Match`` named another version than the stored one."""

    code = "precondition_failed"


class Unauthenticated(SendtideError):
    """No key, or one that is unknown or revoked."""

    code = "unauthenticated"


class Forged(Unauthenticated):
    """A webhook that its vendor did not sign, or signed too long ago; ``challenge`` says how it should have been."""

    code = "forged"

    def __init__(self, detail: str, *, challenge: str = 'Signature realm="sendtide"') -> None:
        super().__init__(detail)
        self.challenge = challenge


class Forbidden(SendtideError):
    """The key lacks a scope."""

    code = "forbidden"


class TooLarge(SendtideError):
    """The body, the batch or the action space is over its limit."""

    code = "too_large"


class UnsupportedMedia(SendtideError):
    """A content type that the route doesn't read."""

    code = "unsupported_media_type"


class Unreachable(SendtideError):
    """Someone else's server, without which this can't be done, doesn't answer; to be tried again."""

    code = "unreachable"


class Unrecorded(SendtideError):
    """The store failed before this row of a batch, of which earlier rows are recorded, or can't read what the request
    repeats; to be tried again."""

    code = "store_unavailable"


class ConfigError(SendtideError):
    """A setting that is unknown or can't be parsed; stops the start."""

    code = "config"


class BadArtifact(SendtideError):
    """A stored model that fails its checksum, its format or its feature spec; the old one stays in use."""

    code = "bad_artifact"
