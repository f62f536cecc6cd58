"""Tersor's part of Transformers' weight conversions.

A checkpoint's tensors go through at most one `WeightConverter` on their way into the model. The model's own ones
merge or split tensors (experts into one parameter, say), so frames have to be decoded before them; all other tensors
go through a converter that takes every name. Both do their work where Transformers does not catch exceptions: a
damaged frame stops the loading with the library's own error.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from transformers.core_model_loading import ConversionOps, WeightConverter, WeightTransform

from tersor.transformers.loading import Loader

_EVERYTHING = "^.*$"


class _Decoding:
    """Mixed into a converter class: what it collects is decoded when it is needed, what it gives is packed."""

    __slots__ = ()
    loader: Loader
    whole = False

    def add_tensor(self, target_key: str, source_key: str, source_pattern: str, future: Any) -> None:
        target = target_key if self.whole else None
        super().add_tensor(
            target_key, source_key, source_pattern, partial(self.loader.materialize, source_key, target, future)
        )

    def convert(self, layer_name: str, loading_info: Any = None, **kwargs: Any) -> dict[str, Any]:
        final: dict[str, Any] = {}
        for name, value in super().convert(layer_name, loading_info=loading_info, **kwargs).items():
            final |= self.loader.finish(name, value[0] if isinstance(value, list) else value)
            if loading_info is not None:
                loading_info.missing_keys.discard(name)
        return final


class _TakeEverything(WeightConverter):
    """Matches every name and does not change it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_EVERYTHING, _EVERYTHING, [_UnderItsName()])

    def rename_source_key(self, source_key: str) -> tuple[str, str | None]:
        return source_key, self.source_patterns[0]


class _UnderItsName(ConversionOps):
    """The one tensor, under the parameter's name."""

    def convert(self, input_dict: dict[str, Any], full_layer_name: str = "", **kwargs: Any) -> dict[str, Any]:
        return {full_layer_name: next(iter(input_dict.values()))}


def decoding_converters(conversions: list[WeightTransform], loader: Loader) -> list[WeightTransform]:
    """The conversions for loading: renamings as they are, converters that decode what they collect, and one for all
    other tensors."""
    own = [_decoding(each, loader) if isinstance(each, WeightConverter) else each for each in conversions]
    return [*own, _class_of(_TakeEverything, loader, whole=True)()]


def used_conversions(conversions: list[WeightTransform], loaded: list[WeightTransform]) -> list[WeightTransform]:
    """The model's own ones of the conversions that matched a tensor: those that saving has to undo."""
    used = []
    for original, copy in zip(conversions, loaded, strict=False):
        original._was_used = copy.was_used()
        if original._was_used:
            used.append(original)
    return used


def _decoding(original: WeightConverter, loader: Loader) -> WeightConverter:
    cls = _class_of(type(original), loader)
    copy = cls.__new__(cls)
    for base in type(original).__mro__:
        for slot in getattr(base, "__slots__", ()):
            if hasattr(original, slot):
                object.__setattr__(copy, slot, getattr(original, slot))
    return copy


def _class_of(base: type[WeightConverter], loader: Loader, whole: bool = False) -> type[WeightConverter]:
    """A decoding kind of `base`. The loader is an attribute of the class, since Transformers deep-copies converters
    for each parameter."""
    return type(
        f"Decoding{base.__name__.lstrip('_')}", (_Decoding, base), {"__slots__": (), "loader": loader, "whole": whole}
    )
