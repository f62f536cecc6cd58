"""Tersor as a vLLM plugin: `--quantization tersor`.

vLLM calls `register()` in each of its processes through the entry point group `vllm.general_plugins`. It registers the
quantization method "tersor" and teaches vLLM's checkpoint reader Tersor's frames. Importing this module does not import vLLM.
"""

from __future__ import annotations

import re

__all__ = ["register"]

MIN_VLLM = (0, 32)


def register() -> None:
    """Registers the quantization method; calling it again changes nothing.

    Raises:
        ImportError: vLLM is older than 0.32, which lacks layer-wise processing of weights while they load.
    """
    _check_version()
    from vllm.model_executor.layers.quantization import register_quantization_config

    from .config import TersorConfig
    from .loader import read_frames

    register_quantization_config("tersor")(TersorConfig)
    read_frames()


def _check_version() -> None:
    import vllm

    # Builds from source have versions such as "dev" or "0.1.dev7": they are taken for new ones.
    release = re.match(r"(\d+)\.(\d+)\.\d", vllm.__version__)
    if release and tuple(map(int, release.groups())) < MIN_VLLM:
        raise ImportError(f"tersor needs vLLM {MIN_VLLM[0]}.{MIN_VLLM[1]} or later, this is {vllm.__version__}")
