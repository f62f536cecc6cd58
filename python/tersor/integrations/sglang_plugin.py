"""What the entry point group `sglang.srt.plugins` names. SGLang calls `register` in each of its processes.

It makes "tersor" a name of SGLang's storage backends, and, if the environment variable TERSOR_SGLANG_STAGING names a codec,
installs the prefill-decode hooks of `sglang_staging`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ._blob import check_codec

__all__ = ["STAGING_VARIABLE", "register"]

BACKEND = "tersor"
STAGING_VARIABLE = "TERSOR_SGLANG_STAGING"
FACTORY = "sglang.srt.mem_cache.storage.backend_factory"


def register() -> None:
    """Registers backend and hooks; calling it again changes nothing. Errors: ImportError (no SGLang, or one without
    plugins), InvalidArgumentError (the variable names no codec)."""
    from sglang.srt.mem_cache.storage.backend_factory import StorageBackendFactory
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    if BACKEND not in StorageBackendFactory._registry:
        StorageBackendFactory.register_backend(BACKEND, "tersor.integrations.sglang", "TersorHiCache")
        # The factory knows how to make its own backends only.
        target = f"{FACTORY}.StorageBackendFactory._create_builtin_backend"
        HookRegistry.register(target, _create_backend, HookType.AROUND)
    codec = os.environ.get(STAGING_VARIABLE, "")
    if codec not in ("", "0"):
        from . import sglang_staging

        sglang_staging.register_hooks(check_codec(codec))


def _create_backend(
    original: Callable[..., Any], cls: Any, name: str, backend_class: Any, config: Any, pool: Any
) -> Any:
    if name == BACKEND:
        return backend_class(config)
    return original(cls, name, backend_class, config, pool)
