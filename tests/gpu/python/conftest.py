import pytest
import torch


def pytest_configure(config):
    if not torch.cuda.is_available():
        pytest.exit("these tests need an NVIDIA GPU", returncode=2)
