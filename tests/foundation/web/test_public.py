"""Only public addresses are called, whatever a name says and however often it changes its mind."""

from __future__ import annotations

import asyncio

import httpcore
import httpx
import pytest

from mllmrec.foundation.web import public
from mllmrec.foundation.web.public import AddressRefusedError, PublicTransport, is_public

INNER = """10.0.0.1 172.16.0.1 192.168.1.1 127.0.0.1 127.9.9.9 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 240.0.0.1
255.255.255.255 192.0.2.1 ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 ff02::1 ::ffff:10.0.0.1
192.0.0.192 192.0.0.1 168.63.129.16 ::ffff:168.63.129.16 64:ff9b::a83f:8110 2002:a83f:8110:: 192.88.99.1 3fff::1
100.100.100.200 198.18.0.1 203.0.113.9 5f00::1 4000::1 ::8.8.8.8
::ffff:127.0.0.1 ::10.0.0.1 64:ff9b::a00:1 64:ff9b::7f00:1 64:ff9b:1::a00:1 2002:a00:1:: 2002:7f00:1:: 2001:0:a00:1::"""
OUTER = "8.8.8.8 93.184.216.34 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::"


@pytest.mark.parametrize("address", INNER.split())
def test_inner_addresses_are_refused_in_every_spelling(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTER.split())
def test_public_addresses_are_not(address: str) -> None:
    assert is_public(address)


def test_the_allowance_for_tests_is_for_loopback_alone() -> None:
    allowed = {address for address in INNER.split() if is_public(address, allow_loopback=True)}
    assert allowed == {"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"}


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that are connected to; every connection then fails."""
    hosts: list[str] = []

    async def connect(_: object, host: str, *__: object, **___: object) -> None:
        hosts.append(host)
        raise httpcore.ConnectError("nobody there")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    return hosts


def get(url: str) -> None:
    async def main() -> None:
        async with PublicTransport(connections=1) as transport:
            await transport.handle_async_request(httpx.Request("GET", url))

    asyncio.run(main())


def test_a_name_that_changes_its_mind_is_asked_once_and_never_dialled(
    monkeypatch: pytest.MonkeyPatch, dialled: list[str]
) -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["93.184.216.34", "10.0.0.1"]])

    async def resolve(host: str, port: int) -> list[str]:
        return next(answers)

    monkeypatch.setattr(public, "resolve", resolve)
    with pytest.raises(httpcore.ConnectError):
        get("http://rebinds.test/")
    assert dialled == ["93.184.216.34"]  # the address that was checked, not the name
    with pytest.raises(AddressRefusedError, match=r"rebinds.test is at 127.0.0.1, which is no public address"):
        get("http://rebinds.test/")
    with pytest.raises(AddressRefusedError, match=r"is at 10.0.0.1"):
        get("http://rebinds.test/")  # one bad address among good ones is enough
    assert len(dialled) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_no_spelling_of_this_machine_is_dialled(host: str, dialled: list[str]) -> None:
    with pytest.raises((AddressRefusedError, httpcore.ConnectError), match="no public address|no address"):
        get(f"http://{host}/")
    assert dialled == []


@pytest.mark.parametrize("port", [22, 25, 81, 6379, 9200, 11211, 65535])
def test_ports_of_other_services_are_refused(monkeypatch: pytest.MonkeyPatch, dialled: list[str], port: int) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34"]

    monkeypatch.setattr(public, "resolve", resolve)
    with pytest.raises(AddressRefusedError, match=f"port {port} of shop.test; only 80, 443, 8080, 8443 are called"):
        get(f"http://shop.test:{port}/")
    assert dialled == []
    for allowed in ("http://shop.test/", "http://shop.test:8080/", "http://shop.test:443/"):
        with pytest.raises(httpcore.ConnectError):
            get(allowed)
    assert dialled == ["93.184.216.34"] * 3
