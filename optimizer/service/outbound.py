"""One POST to an address that a caller has chosen, so that it can't reach what is not meant for the world.

The name is resolved here, every address that it has must be a public one, and the connection goes to an address that
was looked at: a name that points elsewhere a moment later changes nothing. Redirects are not followed, no proxy is
used, and of the answer nothing is read but its status and headers.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from optimizer.errors import Invalid

#: Seconds to connect, and for the whole attempt.
CONNECT_SECONDS, TOTAL_SECONDS = 5.0, 15.0
#: Public by their number, but not of the public internet.
_HIDDEN = tuple(
    ipaddress.ip_network(one)
    for one in (
        # A gateway or a kernel may translate them to private IPv4 addresses (RFC 6052, 8215, 3056, 4380, 4291, 2765).
        *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "::ffff:0:0:0/96"),
        "fec0::/10",  # site-local, deprecated by RFC 3879 and still routed inside some sites
        "168.63.129.16/32",  # the host of any virtual machine at Azure, and its agent's control channel
    )
)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RefusedError(Exception):
    """The address is not one that may, or can, be called."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of an attempt: a status, or an error and none."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None

    @property
    def taken(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300


def check_url(url: str, *, private: bool) -> str:
    """The URL, if webhooks may go there as far as can be said without resolving its name.

    Raises:
        Invalid: names what is allowed.
    """
    schemes = ("https", "http") if private else ("https",)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    plain = url.isascii() and url.isprintable() and " " not in url
    if (
        not plain
        or parts.scheme not in schemes
        or not host
        or port == 0
        or parts.username is not None
        or parts.fragment
    ):
        allowed = " or ".join(f"{scheme}://HOST[:PORT]/PATH" for scheme in schemes)
        raise Invalid.field("url", f"is {url!r:.200}; allowed: {allowed}, without user name and fragment")
    try:
        require_public(ipaddress.ip_address(host), private=private)
    except ValueError:
        pass  # a name, looked at when it is called
    except RefusedError as refused:
        raise Invalid.field("url", str(refused), code="private_address") from None
    return url


def require_public(address: Address, *, private: bool) -> None:
    """``RefusedError`` unless the address is one of the public internet, or ``private`` ones are allowed."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    real = mapped or address
    hidden = any(real in network for network in _HIDDEN)
    if not private and (hidden or not real.is_global or real.is_multicast):
        raise RefusedError(f"{address} is no public address")


def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool) -> Reply:
    """Posts ``body``. Every failure is a ``Reply`` with an error; nothing is raised for what the other side does, nor
    for a URL that turns out to be none: whoever calls counts failures, and would try for ever what it can't count."""
    started = time.monotonic()
    try:
        return _posted(url, body, headers, started, private=private)
    except RefusedError as refused:
        return Reply(None, str(refused))
    except (OSError, http.client.HTTPException, ValueError) as fault:
        late = time.monotonic() - started >= TOTAL_SECONDS
        return Reply(None, "no answer in time" if late else f"{type(fault).__name__}: {fault}"[:200])


def _posted(url: str, body: bytes, headers: Mapping[str, str], started: float, *, private: bool) -> Reply:
    parts = urlsplit(url)
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    until = started + TOTAL_SECONDS
    connection = _Pinned(host, port, _resolve(host, port, private=private), until, tls=tls)
    # A receiver that sends a byte now and then would never time out by itself.
    guard = threading.Timer(max(0.0, until - time.monotonic()), connection.cut)
    guard.daemon = True
    guard.start()
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        return Reply(answer.status, None, _seconds(answer.getheader("Retry-After")))
    finally:
        guard.cancel()
        connection.close()


def _resolve(host: str, port: int, *, private: bool) -> list[tuple[str, int]]:
    """The addresses of the host; ``RefusedError`` when there are none, or any of them may not be called."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as fault:
        raise RefusedError(f"the name can't be resolved: {fault}"[:200]) from None
    for *_, sockaddr in found:
        require_public(ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]), private=private)
    return [(str(sockaddr[0]), port) for *_, sockaddr in found]


class _Pinned(http.client.HTTPConnection):
    """A connection to one of the addresses that were looked at, under the name of their host, and ``until`` when."""

    def __init__(self, host: str, port: int, addresses: Sequence[tuple[str, int]], until: float, *, tls: bool) -> None:
        # Without a port the last group of an IPv6 address would be taken for one.
        super().__init__(host, port, timeout=TOTAL_SECONDS)
        self._addresses, self._until = addresses, until
        self._context = ssl.create_default_context() if tls else None
        self.default_port = 443 if tls else 80

    def connect(self) -> None:
        """Connects to the first address that answers; the certificate must be that of the host."""
        for number, address in enumerate(self._addresses, start=1):
            try:
                self.sock = socket.create_connection(address, min(CONNECT_SECONDS, self._left()))
                break
            except OSError:
                if number == len(self._addresses) or self._until <= time.monotonic():
                    raise
        self.sock.settimeout(self._left())
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)

    def _left(self) -> float:
        """Seconds that are left; a little where none are, since 0 would mean not to wait at all."""
        return max(0.01, self._until - time.monotonic())

    def cut(self) -> None:
        """Ends the connection from another thread."""
        sock = self.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it has ended by itself


def _seconds(header: str | None) -> float | None:
    """``Retry-After`` in seconds; its other form, a date, is not worth a parser."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
