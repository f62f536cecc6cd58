"""KV caches from one process to another: compressed, overlapped with their making, verified (docs/disaggregated.md)::

    with tersor.transfer.Receiver() as receiver:                          # the decode worker
        cache = receiver.wait(7, timeout=30)                              # name -> array, complete and verified
    with tersor.transfer.Sender(*address) as sender:                      # the prefill worker
        report = sender.send(7, {"layers.0.k": k0, "layers.0.v": v0})

A request becomes visible once, when every part of it was verified in the memory where it will be used, and never
before. Beyond loopback a receiver demands a pre-shared key (``psk=``) or the transport "tls".
"""

from __future__ import annotations

from ._receive import Received, Receiver
from ._regions import Geometry, Region, Timeouts
from ._send import Sender, Transfer
from ._transports import transports

__all__ = ["Geometry", "Received", "Receiver", "Region", "Sender", "Timeouts", "Transfer", "transports"]
