"""Which of torch's attention kernels a device uses."""

from __future__ import annotations

import torch


def choose_kernels(device: torch.device) -> None:
    """Leaves cuDNN's out: its backward pass for FLUX.1 read memory that was not its own, on an H100
    and an H200 with torch 2.11 and CUDA 13. torch's flash attention takes its place."""
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
