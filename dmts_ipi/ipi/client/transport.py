"""Puts other sockets into an i-PI input or checkpoint: how forces travel is no physics."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from dmts_ipi.ipi.input_xml import Socket, socket_of

_BLOCK = re.compile(rb"<ffsocket\b.*?</ffsocket>", re.DOTALL)
_MODE = re.compile(rb"\smode\s*=\s*(?:'[^']*'|\"[^\"]*\")")


def with_sockets(raw: bytes, source: bytes, sockets: Mapping[str, Socket]) -> bytes:
    """An input or a checkpoint whose ``<ffsocket>`` of these names listen where they are told.

    One that does so already stays as it is, byte by byte. Another is taken from ``source``, with
    its latency and timeout, and given the address.

    Args:
        raw: the file.
        source: the run's ``input.xml``.
        sockets: by name of the forcefield.
    """
    templates = {_name(block): block for block in _BLOCK.findall(source)}

    def placed(match: re.Match[bytes]) -> bytes:
        name = _name(match[0])
        wanted = sockets.get(name)
        if wanted is None or _socket(match[0]) == wanted:
            return match[0]
        block = templates.get(name, match[0])
        return block if _socket(block) == wanted else _moved(block, wanted)

    return _BLOCK.sub(placed, raw)


def _moved(block: bytes, at: Socket) -> bytes:
    opening, closed, rest = block.partition(b">")
    opening = _MODE.sub(b"", opening) + b" mode='%s'" % at.mode.encode()
    values = {"address": at.address} | ({"port": str(at.port)} if at.mode == "inet" else {})
    for tag, value in values.items():
        element = f"<{tag}>{value}</{tag}>".encode()
        rest, replaced = re.subn(rf"<{tag}\b.*?</{tag}>".encode(), element, rest, flags=re.DOTALL)
        if not replaced:
            rest = element + rest
    return opening + closed + rest


def _name(block: bytes) -> str:
    return ET.fromstring(block).get("name", "").strip()


def _socket(block: bytes) -> Socket:
    return socket_of(ET.fromstring(block))
