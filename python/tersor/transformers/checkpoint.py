"""What the headers of a checkpoint's containers say about each tensor."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from safetensors import safe_open
from tersor._errors import error


class Entry(NamedTuple):
    """One tensor: what the original was, and how many bytes it takes if it is coded (0: it is stored as it was)."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    frame_bytes: int
    digest: int


def read_entries(files: Iterable[str]) -> dict[str, Entry]:
    """The tensors of containers, by name.

    Raises WrongKindError for a file that is not a container, UnsupportedVersionError, and MalformedError for headers
    that contradict each other.
    """
    found: dict[str, Entry] = {}
    for path in files:
        file = os.fspath(path)
        if not is_container(file):
            raise error("wrong_kind", "config.json names Tersor, but this file is not one of its containers", file=file)
        with safe_open(file, framework="pt") as opened:
            originals, digests = _originals(opened.metadata(), file)
            if originals.keys() != set(opened.keys()):
                raise error("malformed", "the container's tensors are not those of the original", file=file)
            for (name, original), digest in zip(originals.items(), digests, strict=True):
                here = opened.get_slice(name)
                stored = here.get_dtype() == original["dtype"] and list(here.get_shape()) == original["shape"]
                frame_bytes = 0 if stored else here.get_shape()[0]
                found[name] = Entry(file, original["dtype"], tuple(original["shape"]), frame_bytes, digest)
    return found


def is_container(file: str) -> bool:
    """Whether a safetensors file has Tersor's metadata."""
    if not os.fspath(file).endswith(".safetensors"):
        return False
    with safe_open(file, framework="pt") as opened:
        return "tersor" in (opened.metadata() or {})


def _originals(metadata: dict[str, str], file: str) -> tuple[dict[str, dict], list[int]]:
    """The original's tensors in the order of its data, and their digests."""
    if metadata["tersor"] != "1":
        raise error("unsupported_version", f"the container has version {metadata['tersor']}", file=file)
    try:
        header, text = json.loads(metadata["tersor.header"]), metadata["tersor.digests"]
        header.pop("__metadata__", None)
        ordered = dict(sorted(header.items(), key=lambda item: (*item[1]["data_offsets"], item[0].encode())))
        digests = [int(text[at : at + 16], 16) for at in range(0, len(text), 16)]
    except (AttributeError, KeyError, TypeError, ValueError) as why:
        raise error("malformed", "the container's header cannot be read", file=file) from why
    if len(text) != 16 * len(ordered):
        raise error("malformed", "the container's list of digests has the wrong length", file=file)
    return ordered, digests
