"""Tersor for PyTorch: packed weights, modules and operators, and files.

::

    report = tersor.torch.compress_module(model)          # nn.Linear -> tersor.torch.Linear, in place
    tensors = tersor.torch.load_file("model.safetensors", device="cuda")
"""

from tersor.torch.experts import Experts, PackedExperts
from tersor.torch.files import compress_model, load_file, load_packed, safe_open, save_file
from tersor.torch.functional import linear
from tersor.torch.layers import Linear
from tersor.torch.modules import LayerReport, ModuleReport, compress_module
from tersor.torch.packed import PackedWeight

__all__ = [
    "Experts", "LayerReport", "Linear", "ModuleReport", "PackedExperts", "PackedWeight", "compress_model",
    "compress_module", "linear", "load_file", "load_packed", "safe_open", "save_file",
]  # fmt: skip
