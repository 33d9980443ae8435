"""Where the shop's endpoint may be: what is not public is refused, however it is spelled or resolved."""

import ipaddress
import socket

import pytest

from flashsale.endpoint import Delivered, Failed
from flashsale.endpoint.addresses import NotPublic, kind_of, public_socket
from flashsale.errors import SetupError
from tests.flow.shop import BODY, ID, OK, endpoint, resolve_to, shop


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "a loopback"),
        ("127.255.255.255", "a loopback"),
        ("0.0.0.0", "an unspecified"),  # noqa: S104 -- not bound
        ("10.1.2.3", "a private"),
        ("172.16.0.1", "a private"),
        ("172.31.255.255", "a private"),
        ("172.32.0.1", None),
        ("192.168.1.1", "a private"),
        ("169.254.169.254", "a link-local"),
        ("100.64.0.1", "a carrier's inner"),
        ("100.128.0.1", None),
        ("192.0.0.8", "a reserved"),
        ("198.19.255.255", "a reserved"),
        ("203.0.113.7", "a documentation"),
        ("224.0.0.1", "a multicast"),
        ("255.255.255.255", "a reserved"),
        ("93.184.216.34", None),
        ("::", "an unspecified"),
        ("::1", "a loopback"),
        ("::ffff:127.0.0.1", "a loopback"),
        ("::ffff:10.0.0.1", "a private"),
        ("::ffff:93.184.216.34", None),
        ("::127.0.0.1", "a reserved"),
        ("64:ff9b::10.0.0.1", "a private"),
        ("64:ff9b::93.184.216.34", None),
        ("64:ff9b:1::1", "a reserved"),
        ("2002:7f00:1::", "a loopback"),
        ("2002:5db8:d822::1", None),
        ("2001:0:5db8:d822::80ff:fffe", "a loopback"),
        ("2001:0:a00:1::a247:27dd", "a private"),
        ("2001:2::1", "a reserved"),
        ("2001:db8::1", "a documentation"),
        ("fc00::1", "a private"),
        ("fd12:3456::1", "a private"),
        ("fe80::1", "a link-local"),
        ("fec0::1", "a reserved"),
        ("ff02::1", "a multicast"),
        ("2606:4700::1111", None),
    ],
)
def test_addresses_that_are_not_public_are_known(address: str, kind: str | None) -> None:
    """Also inside IPv6 addresses that stand for an IPv4 address; then no socket is made for connecting there."""
    assert kind_of(ipaddress.ip_address(address)) == kind
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    info = (family, socket.SOCK_STREAM, 0, "", (address, 443))
    if kind is None:
        public_socket(info).close()
    else:
        with pytest.raises(NotPublic, match=kind):
            public_socket(info)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]:80/",
        "https://10.0.0.1/x",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://169.254.169.254/latest",
        "http://LOCALHOST/",
        "http://localhost./",
        "http://shop.localhost:8080/",
        "http://0.0.0.0/",
    ],
)
def test_an_address_that_is_not_public_needs_the_setting(url: str) -> None:
    with pytest.raises(SetupError, match=r"FLASHSALE_FULFILMENT_URL has .* needs FLASHSALE_FULFILMENT_ALLOW_PRIVATE=1"):
        endpoint(url, allow_private=False)
    endpoint(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example/orders",
        "ftp://shop.example/",
        "file:///etc/passwd",
        "//shop.example/",
        "http:shop.example",
        "http://",
        "http:///orders",
        "http://:80/",
        "https://me:pass@shop.example/",
        "https://@shop.example/",
        "https://shop.example/#here",
        "https://shop.example\\@127.0.0.1/",
        "https://shop.example /",
        " https://shop.example/",
        "https://shop.example/\n",
        "https://shop\t.example/",
        "https://müller.example/",
        "https://shop.example:0/",
        "https://shop.example:99999/",
        "https://shop.example:pass/",
        "https://shop..example/",
        "https://%31%32%37.0.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.1./",
        "http://[::1/",
        "http://[::1%25lo]/",
        "http://[v1.x]/",
    ],
)
@pytest.mark.parametrize("allow_private", [True, False])
def test_a_url_that_cannot_be_meant_is_refused(url: str, allow_private: bool) -> None:
    """Before anything is sent; and what was given is not repeated."""
    with pytest.raises(SetupError) as refused:
        endpoint(url, allow_private=allow_private)
    assert refused.value.detail.startswith("FLASHSALE_FULFILMENT_URL ")
    assert "pass" not in refused.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example",
        "http://shop.example:8080/orders?from=sale&x=%20",
        "https://SHOP.example./",
        "https://a_b.xn--mller-kva.example/",
        "https://93.184.216.34/",
        "https://[2606:4700::1111]:8443/",
        "https://shop/",
    ],
)
def test_a_public_url_needs_no_setting(url: str) -> None:
    assert endpoint(url, allow_private=False).url == url


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["::1", "127.0.0.1"], ["::ffff:127.0.0.1"]])
async def test_a_name_that_leads_to_this_machine_is_refused(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at is what the socket would connect to, whatever the name said before. Allowed, it is called."""
    async with shop(OK) as there:
        asked = resolve_to(monkeypatch, *addresses)
        url = there.url.replace("127.0.0.1", "shop.example")
        async with endpoint(url, allow_private=False) as sender:
            reason = "it has a loopback address, and FLASHSALE_FULFILMENT_ALLOW_PRIVATE is not set"
            assert await sender.send(ID, BODY) == Failed(reason)
        assert (asked, there.connections) == (["shop.example"], 0)
        async with endpoint(url) as sender:
            assert await sender.send(ID, BODY) == Delivered(200)


async def test_a_name_that_does_not_resolve_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with endpoint("https://shop.example/") as sender:
        assert await sender.send(ID, BODY) == Failed("its name cannot be resolved: Name or service not known")
