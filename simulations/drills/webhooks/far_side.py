"""The network's far side: what a server fetches from Amazon, answered here.

A proxy that takes the tunnels to one host and speaks TLS there, with a certificate of an authority of its own. The
server under attack is told of both by the environment (``https_proxy``, ``SSL_CERT_FILE``), so nothing in it knows that
it is a drill.
"""

from __future__ import annotations

import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class FarSide:
    """Serves one document at an https address, for the length of a ``with`` block."""

    def __init__(self, url: str, page: bytes, folder: Path) -> None:
        """``folder`` is where keys and certificates are put."""
        self.authority = folder / "authority.pem"
        chain = folder / "far-side.pem"
        host = urlsplit(url).hostname or ""
        _certify(host, self.authority, chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _proxy(context, host, page))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="far-side", daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What tells a process of it."""
        proxy = f"http://127.0.0.1:{self._server.server_address[1]}"
        return {"https_proxy": proxy, "SSL_CERT_FILE": str(self.authority)}

    def __enter__(self) -> FarSide:
        """Starts it."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _proxy(context: ssl.SSLContext, host: str, page: bytes) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            if self.path != f"{host}:443":  # a library that calls its maker; nothing of that leaves a drill
                self.send_error(403)
                return
            self.send_response(200)
            self.end_headers()
            with context.wrap_socket(self.connection, server_side=True) as tunnel:
                tunnel.recv(65536)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
                tunnel.sendall(head.encode() + page)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    return Proxy


def _certify(host: str, authority: Path, chain: Path) -> None:
    """Writes the certificate of an authority, and a key with a certificate for ``host`` that it signed."""
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "drill authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    begin = datetime.now(UTC) - timedelta(days=1)

    def build(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(issuer, name, public, x509.random_serial_number())
        return builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=30))

    top = build(issuer, root.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    named = x509.SubjectAlternativeName([x509.DNSName(host)])
    leaf = build(subject, key.public_key()).add_extension(named, False).sign(root, SHA256())
    authority.write_bytes(top.sign(root, SHA256()).public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(leaf.public_bytes(Encoding.PEM) + private)
