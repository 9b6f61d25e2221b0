"""Peers' addresses (docs/protocol.md §7), read by Python's own parsers and hashes.

`read` gives the one written form, the network, and the two properties that rules ask for; it raises Refused with the
class of refusal.
"""

import base64
import hashlib
import ipaddress
import re

PRIVATE = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 "
        "::/128 ::1/128 fc00::/7 fe80::/10"
    ).split()
]
ONION_VERSION = 3
LABEL = re.compile(r"[a-z0-9_-]{1,63}")


class Refused(Exception):
    """Not an address; the class is the argument."""


def onion_host(public_key, version=ONION_VERSION, checksum=None):
    """The host of an onion service; the other arguments make bad ones."""
    versioned = public_key + bytes([version])
    if checksum is None:
        checksum = hashlib.sha3_256(b".onion checksum" + versioned).digest()[:2]
    return base64.b32encode(public_key + checksum + bytes([version])).decode().lower() + ".onion"


def base32(text, length):
    """`length` bytes from their one form in base 32; None for anything else."""
    try:
        raw = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except ValueError:
        return None
    return raw if len(raw) == length and base64.b32encode(raw).decode().rstrip("=").lower() == text else None


def check_onion(label):
    raw = base32(label, 35)
    if raw is None:
        raise Refused("onion-name")
    if raw[34] != ONION_VERSION:
        raise Refused("onion-version")
    if onion_host(raw[:32]) != label + ".onion":
        raise Refused("onion-checksum")


def network_of(host):
    """The network of a host that is no IP address."""
    *labels, last = host.split(".")
    if last == "onion":
        check_onion(".".join(labels))
    elif last == "i2p":
        if labels[1:] != ["b32"] or base32(labels[0], 32) is None:
            raise Refused("i2p-name")
    elif len(host) > 253 or last.isdigit() or not all(map(LABEL.fullmatch, host.split("."))):
        raise Refused("peer-addr")
    else:
        return "dns"
    return last


def read(text):
    """What a text says, as the vectors show it."""
    match = re.fullmatch(r"(?:\[([^\]%]*)\]|([^:]*)):([0-9]+)", text, re.ASCII)
    if not match or int(match[3]) > 65535 or not text.isascii():
        raise Refused("peer-addr")
    in_brackets, bare, port = match[1], match[2], int(match[3])
    try:
        ip = ipaddress.IPv4Address(bare) if in_brackets is None else ipaddress.IPv6Address(in_brackets)
    except ValueError:
        if in_brackets is not None:
            raise Refused("peer-addr") from None
        host = bare.lower()
        network = network_of(host)
        shown = {"network": network, "public": True, "exchanged": network != "dns" and port != 0}
        return {"written": f"{host}:{port}", **shown}
    ip = getattr(ip, "ipv4_mapped", None) or ip
    special = ip.is_unspecified or ip.is_multicast or ip == ipaddress.IPv4Address("255.255.255.255")
    written = f"{ip}:{port}" if ip.version == 4 else f"[{ip}]:{port}"
    public = not any(ip in network for network in PRIVATE)
    return {"written": written, "network": "ip", "public": public, "exchanged": port != 0 and not special}
