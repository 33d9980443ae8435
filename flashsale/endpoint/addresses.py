"""Where messages may go: not to addresses that only we can reach, unless the setting allows it.

A URL is checked when it is set; a name's addresses when it is resolved, on each socket before it connects. So it does
not matter how the address is spelled, nor what the name resolved to a moment ago.
"""

import ipaddress
import re
import socket
from typing import Final
from urllib.parse import urlsplit

from flashsale.errors import SetupError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]
"""As `socket.getaddrinfo` has them."""

_KINDS: Final = [
    (ipaddress.ip_network(network), kind)
    for kind, networks in {
        "a loopback": "127.0.0.0/8 ::1/128",
        "an unspecified": "0.0.0.0/8 ::/128",
        "a private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7",
        "a link-local": "169.254.0.0/16 fe80::/10",
        "a carrier's inner": "100.64.0.0/10",
        "a multicast": "224.0.0.0/4 ff00::/8",
        "a documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
        "a reserved": "192.0.0.0/24 192.88.99.0/24 198.18.0.0/15 240.0.0.0/4 2001::/23",
    }.items()
    for network in networks.split()
]
"""IANA's registries of special-purpose addresses, where they are not globally reachable."""
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def kind_of(address: Address) -> str | None:
    """What an address is if it is not public ("a loopback"); None if it is.

    An IPv6 address that stands for an IPv4 address (mapped, NAT64, 6to4, Teredo) is what that one is.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(inner):
            return next((kind for each in inner if each is not None and (kind := kind_of(each))), None)
    for network, kind in _KINDS:
        if address in network:
            return kind
    return None if address.version == 4 or address in _GLOBAL_UNICAST else "a reserved"  # noqa: PLR2004 -- IPv4


class NotPublic(OSError):
    """The name leads to an address that may be reached from here only, and the setting does not allow that."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"it has {kind} address, and FLASHSALE_FULFILMENT_ALLOW_PRIVATE is not set")


def public_socket(info: AddressInfo) -> socket.socket:
    """A socket for connecting to just this address; `NotPublic` when it is not public."""
    family, kind, protocol, _, address = info
    not_public = kind_of(ipaddress.ip_address(str(address[0]).partition("%")[0]))
    if not_public is not None:
        raise NotPublic(not_public)
    return socket.socket(family, kind, protocol)


def check_url(url: str, *, allow_private: bool) -> None:
    """`SetupError` for what `Endpoint` names. What was given is not repeated: it may hold a password."""

    def wrong(why: str) -> SetupError:
        return SetupError(f"FLASHSALE_FULFILMENT_URL {why}. Give it like https://shop.example/orders.")

    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise wrong("holds spaces, a backslash or signs outside ASCII (write a name in its xn-- form)")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise wrong("is not a URL") from None
    if parts.scheme not in {"http", "https"}:
        raise wrong("begins neither with https:// nor with http://")
    if "@" in parts.netloc or "#" in url:
        raise wrong("holds credentials or a fragment")
    bare = host.rstrip(".")
    is_name = re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", host) and "[" not in parts.netloc
    if not (is_name or re.fullmatch(r"[0-9a-f:.]*:[0-9a-f:.]*", host)) or port == 0:
        raise wrong("has no host that can be called")
    not_public = "a loopback" if bare == "localhost" or bare.endswith(".localhost") else None
    if ":" in host or _is_number(bare):
        try:
            not_public = kind_of(ipaddress.ip_address(host))
        except ValueError:
            raise wrong("spells its address in an unusual way") from None
    if not_public is not None and not allow_private:
        raise wrong(f"has {not_public} address, which needs FLASHSALE_FULFILMENT_ALLOW_PRIVATE=1")


def _is_number(host: str) -> bool:
    """Whether the system would read it as an IPv4 address: four numbers, or fewer, in whatever base."""
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True
