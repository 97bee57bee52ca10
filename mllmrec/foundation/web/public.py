"""Call public addresses only: no metadata service, no host of the inner network.

A name is resolved once a connection. Every address of it is checked, and the connection goes to a checked address,
never to the name again. So neither a redirect nor a name that changes its address (DNS rebinding) leads inside. A proxy
would resolve names by itself, therefore none is used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from functools import cache
from typing import Any

import httpcore
import httpx

from mllmrec.errors import MllmrecError


@cache
def certificates() -> ssl.SSLContext:
    """Return httpx's own choice: certifi's, or those that SSL_CERT_FILE or SSL_CERT_DIR name."""
    return httpx.create_ssl_context()


PORTS = (80, 443, 8080, 8443)
"""Ports that are called: those of HTTP and their usual alternates. Pictures lie nowhere else on the public network, and
a request to another port reaches a service of another kind: mail, a data base, a router's own page."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")
# Addresses that route globally by their registry's tables, and yet serve the inside of a cloud or nobody.
_NOT_PUBLIC = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # IETF protocols; 192.0.0.192 is Oracle Cloud's metadata service
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's platform service, with metadata and keys
    ipaddress.IPv4Network("192.88.99.0/24"),  # the former 6to4 relays
    ipaddress.IPv6Network("3fff::/20"),  # documentation
)


class AddressRefusedError(MllmrecError):
    """A host at an address that is not public, or a port that is not called; the text is the reason."""


def is_public(address: str, *, allow_loopback: bool = False) -> bool:
    """Return whether an IP address may be called: globally routable, as is the IPv4 address that it may carry."""
    given = ipaddress.ip_address(address)
    if isinstance(given, ipaddress.IPv6Address) and given.ipv4_mapped:
        given = given.ipv4_mapped
    if given.is_loopback:
        return allow_loopback
    if isinstance(given, ipaddress.IPv4Address):
        return _is_global(given)
    if given in _NAT64:
        return _is_global(ipaddress.IPv4Address(int(given) & 0xFFFFFFFF))
    if given.sixtofour is not None:  # Python from 3.11.10 on calls all of 2002::/16 private
        return _is_global(given.sixtofour)
    return _is_global(given) and not given.is_site_local


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if address.version == 6 and address not in _IPV6_UNICAST:
        return False
    listed = any(address in network for network in _NOT_PUBLIC if network.version == address.version)
    return address.is_global and not address.is_multicast and not address.is_reserved and not listed


async def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a name, each once.

    Raises:
        httpcore.ConnectError: it has none.
    """
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"no address for {host!r}") from error
    return list(dict.fromkeys(str(info[4][0]) for info in entries))


class _PublicBackend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections to checked addresses."""

    def __init__(self, *, allow_loopback: bool) -> None:
        self._allow_loopback = allow_loopback
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await resolve(host, port)
        for address in addresses:
            if not is_public(address, allow_loopback=self._allow_loopback):
                raise AddressRefusedError(f"{host} is at {address}, which is no public address")
            if port not in PORTS and not ipaddress.ip_address(address).is_loopback:
                raise AddressRefusedError(f"port {port} of {host}; only {', '.join(map(str, PORTS))} are called")
        failed: Exception = httpcore.ConnectError(f"no address for {host!r}")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()


class PublicTransport(httpx.AsyncBaseTransport):
    """An httpx transport that calls public addresses only.

    Args:
        connections: the most connections at once.
        allow_loopback: only for tests: this machine's own addresses may be called as well.
    """

    def __init__(self, *, connections: int, allow_loopback: bool = False) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=certificates(),
            max_connections=connections,
            keepalive_expiry=10.0,
            network_backend=_PublicBackend(allow_loopback=allow_loopback),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request.

        Raises:
            AddressRefusedError: the host's address or port may not be called.
            httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError: the exchange failed.
        """
        response = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()
