"""Tersor for PyTorch: packed weights, modules and operators, and files.

::

    report = tersor.torch.compress_module(model)          # nn.Linear -> tersor.torch.Linear, in place
    tensors = tersor.torch.load_file("model.safetensors", device="cuda")
"""

from tersor.torch.experts import Experts, PackedExperts
from tersor.torch.functional import linear
from tersor.torch.layers import Linear
from tersor.torch.modules import LayerReport, ModuleReport, compress_module
from tersor.torch.packed import PackedWeight

__all__ = [
    "Experts", "LayerReport", "Linear", "ModuleReport", "PackedExperts", "PackedWeight", "compress_module", "linear",
]  # fmt: skip
