"""Which of torch's attention kernels a device uses."""

from __future__ import annotations

import torch


def choose_kernels(device: torch.device) -> None:
    """Leaves cuDNN's out: its backward pass for FLUX.1 ended in an illegal memory access on an
    H200, with torch 2.11 and CUDA 13; a step failed on an H100, too. torch's own kernels take its
    place."""
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
