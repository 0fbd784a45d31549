"""Where webhooks may go: public addresses only, looked at when they are called, and never for longer than allowed."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from optimizer.errors import Invalid
from optimizer.service import outbound
from optimizer.service.outbound import Reply, check_url, post

HIDDEN = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104  it is refused
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "::7f00:1",
    "::ffff:0:7f00:1",
    "fec0::1",
    "168.63.129.16",
    "::ffff:168.63.129.16",
]


@pytest.mark.parametrize("address", HIDDEN)
def test_an_address_that_is_not_public_is_refused_when_it_is_set_and_when_it_is_called(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(Invalid, match="no public address"):
        check_url(f"https://{host}/x", private=False)
    assert check_url(f"http://{host}/x", private=True)

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    told = [(family, socket.SOCK_STREAM, 6, "", (address, 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: told)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it was called"))
    reply = post("https://innocent.example/x", b"{}", {}, private=False)
    assert reply == Reply(None, f"{ipaddress.ip_address(address)} is no public address")


def test_a_name_with_one_hidden_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443)) for one in ("93.184.215.14", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: told)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it was called"))
    assert "10.0.0.1" in (post("https://innocent.example/", b"{}", {}, private=False).error or "")


def test_a_name_is_resolved_once_and_the_address_that_was_looked_at_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["93.184.215.14", "127.0.0.1"])
    called: list[Any] = []

    def resolve(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 443))]

    def connect(address: Any, *_: Any) -> Any:
        called.append(address)
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert "refused" in (post("https://rebinding.example/", b"{}", {}, private=False).error or "")
    assert called == [("93.184.215.14", 443)]


class Tls:
    """In place of a TLS context: notes the name that the certificate would have to bear, and encrypts nothing."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def wrap_socket(self, sock: socket.socket, server_hostname: str) -> socket.socket:
        self.names.append(server_hostname)
        return sock


@pytest.mark.parametrize("address", ["2606:4700:4700::1111", "2606:4700:4700::beef", "93.184.215.14", "example.org"])
@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("port", [None, "443", "80", "8443"])
def test_a_receiver_is_called_at_its_port_and_by_its_name_whatever_it_is(
    monkeypatch: pytest.MonkeyPatch, address: str, scheme: str, port: str | None
) -> None:
    ours, theirs = socket.socketpair()
    called: list[Any] = []
    tls = Tls()

    def connect(pinned: Any, *_: Any) -> socket.socket:
        called.append(pinned)
        return ours

    real = "93.184.215.14" if address == "example.org" else address
    told = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (real, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: told)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(ssl, "create_default_context", lambda: tls)
    host = f"[{address}]" if ":" in address else address
    url = check_url(f"{scheme}://{host}{f':{port}' if port else ''}/hook?a=1", private=True)
    with closing(ours), closing(theirs):
        theirs.sendall(OK)
        assert post(url, b"{}", {}, private=True) == Reply(204)
        first, *headers = theirs.recv(65_536).decode().split("\r\n")
    usual = "443" if scheme == "https" else "80"
    assert called == [(real, int(port or usual))]
    assert first == "POST /hook?a=1 HTTP/1.1"
    assert f"Host: {host if port in (None, usual) else f'{host}:{port}'}" in headers
    assert tls.names == ([address] if scheme == "https" else [])


@pytest.mark.parametrize("url", ["https://[::1", "https://example.org:port/", "https://exa\nmple.org:port/x", ""])
def test_a_url_that_can_no_longer_be_read_is_a_failure_that_counts(url: str) -> None:
    reply = post(url, b"{}", {}, private=True)
    assert reply.status is None
    assert reply.error


def test_a_connection_that_can_not_even_be_made_is_a_failure_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ssl.SSLError("no certificates")

    monkeypatch.setattr(ssl, "create_default_context", broken)
    assert "no certificates" in (post("https://93.184.215.14/", b"{}", {}, private=False).error or "")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "example.org",
        "https:///x",
        "https://user:pw@example.org/",
        "https://example.org/#x",
        "https://example.org:99999/",
        "https://exa mple.org/",
        "https://example.org/\r\nX: y",
        "https://exämple.org/",
        "https://[::1",
    ],
)
def test_a_url_that_is_none_of_ours_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="allowed: https"):
        check_url(url, private=False)


def test_a_name_that_nobody_has_is_an_error_and_no_exception() -> None:
    reply = post("https://nowhere.invalid/", b"{}", {}, private=False)
    assert reply.status is None
    assert "resolved" in (reply.error or "")


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers each connection with the next of these bytes and keeps it open."""
    answers: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        opened: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                opened.append(connection)
                connection.recv(65_536)
                connection.sendall(answers.pop(0))

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/", answers
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in opened:
            connection.close()


OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (OK, Reply(204)),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", Reply(302)),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 90\r\nContent-Length: 0\r\n\r\n", Reply(429, None, 90.0)),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\nContent-Length: 0\r\n\r\n", Reply(503)),
    ],
)
def test_of_an_answer_its_status_is_taken_and_no_redirect_followed(
    receiver: tuple[str, list[bytes]], answer: bytes, reply: Reply
) -> None:
    url, answers = receiver
    answers.append(answer)
    assert post(url, b"{}", {}, private=True) == reply


def test_an_answer_that_is_no_http_is_an_error(receiver: tuple[str, list[bytes]]) -> None:
    url, answers = receiver
    answers.append(b"220 smtp ready\r\n")
    assert "BadStatusLine" in (post(url, b"{}", {}, private=True).error or "")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2"])
def test_a_receiver_that_never_ends_is_left_in_time(
    receiver: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(outbound, "TOTAL_SECONDS", 0.2)
    url, answers = receiver
    answers.append(answer)
    assert post(url, b"{}", {}, private=True) == Reply(None, "no answer in time")


def test_a_name_with_many_dead_addresses_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def connect(_: Any, seconds: float) -> socket.socket:
        waited.append(seconds)
        time.sleep(seconds)
        raise TimeoutError("timed out")

    told = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"93.184.215.{i}", 443)) for i in range(40)]
    monkeypatch.setattr(outbound, "TOTAL_SECONDS", 0.3)
    monkeypatch.setattr(outbound, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: told)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert post("https://dead.example/", b"{}", {}, private=False) == Reply(None, "no answer in time")
    assert sum(waited) < 0.4
