"""What a training runs on: which of several processes leads, and in which precision it computes."""

import os

import torch

from .loading import TrainingError


def is_rank_zero() -> bool:
    """Whether this process leads: the only one that may track, write models or remove files.

    On several devices Lightning starts the same command again, with LOCAL_RANK set; nodes are told
    apart by NODE_RANK.
    """
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name) or 0) == 0 for name in names)


def precision(asked: str) -> str:
    """Lightning's name of the precision; `auto` is bf16 where the processor or device computes in
    it natively.
    """
    cuda = torch.cuda.is_available()
    if asked == "auto":
        native = (
            torch.cuda.is_bf16_supported(False) if cuda else torch.cpu._is_avx512_bf16_supported()
        )
        asked = "bf16" if native else "32"
    if asked == "16" and not cuda:
        raise TrainingError("train.precision 16 needs a CUDA device: use auto, bf16 or 32")
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[asked]
