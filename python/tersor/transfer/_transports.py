"""What moves the messages."""

from __future__ import annotations

from typing import Any

from .. import _core


def transports() -> list[dict[str, Any]]:
    """``name``, ``available`` and ``detail`` of every transport: what was found, or why it is not there."""
    return [dict(found) for found in _core.transfer.transports()]
