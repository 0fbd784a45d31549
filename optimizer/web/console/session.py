"""Who looks at the console: a signed cookie that names a key and never holds it.

The cookie is signed with a random secret of the installation's own, which the store keeps. It says which key was used
to sign in; the key itself is looked up at every request, so that revoking it ends its sessions at once. Signing out
ends the session on the server, too: the store keeps its name until the cookie would have been too old.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flask import Request, Response
from itsdangerous import BadData, URLSafeSerializer

from optimizer.service.wiring import Services
from storage.port import Reader
from storage.records import ApiKey

COOKIE: Final = "sendtide_console"
#: Where the cookie is sent to: nothing but the console ever sees it.
PATH: Final = "/console"
#: How long a session lasts after signing in.
LASTS: Final = timedelta(hours=12)
#: How far clocks of servers that share a store may differ.
_AHEAD: Final = timedelta(minutes=5)
#: Under which name the store keeps what cookies are signed with.
_KEPT_AS: Final = "console_secret"


@dataclass(frozen=True, slots=True)
class Session:
    """What the cookie says. ``key_id`` None: nobody has signed in yet, the nonce guards the sign-in form alone."""

    nonce: str
    since: datetime
    workspace_id: str | None = None
    key_id: str | None = None

    @property
    def name(self) -> str:
        """What the store calls it; it opens nothing."""
        return hashlib.sha256(b"session:" + self.nonce.encode()).hexdigest()

    @classmethod
    def fresh(cls, now: datetime) -> Session:
        """A session of nobody."""
        return cls(secrets.token_urlsafe(24), now)

    def of(self, key: ApiKey, now: datetime) -> Session:
        """The session of a key's holder, with a new nonce: what was known before signing in is worth nothing."""
        return replace(Session.fresh(now), workspace_id=key.workspace_id, key_id=key.key_id)


@dataclass(frozen=True)
class Seal:
    """Signs and reads cookies, and makes the tokens of forms."""

    secret: bytes

    def sealed(self, session: Session) -> str:
        """The cookie of a session."""
        said = {"n": session.nonce, "t": int(session.since.timestamp())}
        if session.key_id is not None:
            said |= {"w": session.workspace_id, "k": session.key_id}
        return str(self._signer.dumps(said))

    def opened(self, cookie: str | None, now: datetime) -> Session | None:
        """The session of a cookie; None when it is forged, broken or too old."""
        if not cookie:
            return None
        try:
            said: dict[str, Any] = self._signer.loads(cookie)
        except BadData:
            return None
        since = datetime.fromtimestamp(said["t"], UTC)
        if not since <= now + _AHEAD or now - since >= LASTS:
            return None
        return Session(said["n"], since, said.get("w"), said.get("k"))

    def token(self, session: Session) -> str:
        """What every form of this session must send along (CSRF)."""
        return hmac.new(self.secret, b"form:" + session.nonce.encode(), hashlib.sha256).hexdigest()

    def is_token(self, session: Session, given: str) -> bool:
        """Whether a form belongs to this session."""
        return hmac.compare_digest(self.token(session).encode(), given.encode("utf-8", "replace"))

    @property
    def _signer(self) -> URLSafeSerializer:
        return URLSafeSerializer(
            self.secret,
            salt=COOKIE,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )


def seal_of(services: Services) -> Seal:
    """The installation's seal; its secret is made when it is first needed."""
    with services.store.read() as reader:
        stored = reader.meta(_KEPT_AS)
    if stored is None:
        made = secrets.token_hex(32)
        stored = services.store.write(lambda writer: writer.put_meta(_KEPT_AS, made))
    return Seal(bytes.fromhex(stored))


def key_of(reader: Reader, session: Session) -> ApiKey | None:
    """The key that a session was opened with, as it stands now; None when there is none, it was revoked, or the session
    was ended."""
    if session.workspace_id is None or session.key_id is None or reader.session_ended(session.name):
        return None
    found = (key for key in reader.keys(session.workspace_id) if key.key_id == session.key_id)
    key = next(found, None)
    return key if key is not None and key.revoked_at is None else None


def end(services: Services, session: Session) -> None:
    """Ends a session on the server: a copy of its cookie opens nothing any more, either."""
    until, now = session.since + LASTS + _AHEAD, services.clock()
    services.store.write(lambda writer: writer.end_session(session.name, until, now))


def hand_out(response: Response, request: Request, cookie: str, *, secure: bool) -> None:
    """Sets the session's cookie."""
    response.set_cookie(
        COOKIE,
        cookie,
        path=PATH,
        httponly=True,
        samesite="Strict",
        secure=secure or request.is_secure,
        max_age=int(LASTS.total_seconds()),
    )


def take_back(response: Response) -> None:
    """Removes the session's cookie."""
    response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="Strict")
