"""The machine under the notebooks: device, precision, memory, seeds."""

from __future__ import annotations

import os
import platform
import random
import re
import warnings

import numpy as np
import psutil
import torch


def device(name: str = "auto") -> torch.device:
    """Return the device to compute on: CUDA, else Apple's MPS, else the CPU; or the one named, as in PyTorch.

    Under ``torchrun`` each process takes the GPU of its local rank. One that is not there is a ValueError.
    """
    found = "mps" if torch.backends.mps.is_available() else "cpu"
    if torch.cuda.is_available() and name.startswith(("auto", "cuda")):
        wanted = torch.device(name.replace("auto", "cuda"))
        local = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        if wanted.index is None and local:
            wanted = torch.device("cuda", local)
        if not (reason := _too_old(wanted.index or 0)):
            return wanted
        if name != "auto":
            raise ValueError(f"{reason}; use device='cpu'")
        warnings.warn(f"{reason}; computing on the CPU", stacklevel=2)
    if name != "auto" and torch.device(name).type not in {"cpu", found}:
        here = "cuda" if torch.cuda.is_available() else found
        raise ValueError(f"device {name!r} is not on this machine; use 'auto' (here: {here})")
    return torch.device(found if name == "auto" else name)


def _too_old(number: int) -> str:
    """Return why a GPU cannot be used, or "": an old one seems available, and fails at the first kernel."""
    try:
        own = torch.cuda.get_device_capability(number)
    except Exception:  # a driver that does not tell: whether the GPU can be used shows at the first step
        return ""
    known = [divmod(int(n), 10) for n in re.findall(r"_(\d+)", " ".join(torch.cuda.get_arch_list()))]
    if not known or own >= min(known):
        return ""
    has, needs = (".".join(map(str, each)) for each in (own, min(known)))
    return f"{torch.cuda.get_device_name(number)} is too old (compute {has}; this PyTorch needs {needs})"


def autocast_dtype(where: torch.device, precision: str = "auto") -> torch.dtype | None:
    """Return the half precision asked for, or in which a device is faster; None for float32."""
    if precision != "auto":
        return None if precision == "float32" else getattr(torch, precision)
    if where.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # on CPUs bfloat16 needs AVX512-BF16 or AMX: emulated, it is slower than float32
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if where.type == "cpu" and check is not None and check() else None


def free_memory(where: torch.device) -> int:
    """Return the bytes that a device has free, on CPUs those that can be had without swapping."""
    return torch.cuda.mem_get_info(where)[0] if where.type == "cuda" else psutil.virtual_memory().available


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (every device) with a number from 0 to 2**32 - 1."""
    random.seed(seed)
    np.random.seed(seed)  # refuses what is out of range
    torch.manual_seed(seed)


def seed_device(seed: int, where: torch.device) -> None:
    """Seed PyTorch's random numbers of the CPU and of the kind of device that is used."""
    # not torch.manual_seed: for devices not in use it records the stack of calls, 0.6 ms a step in a notebook
    torch.default_generator.manual_seed(seed)
    if where.type != "cpu":
        getattr(torch, where.type).manual_seed(seed)


def machine() -> dict[str, str | int]:
    """Return what a figure depends on: processor, threads, accelerator and versions, as plain types."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_count": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "half_precision": str(autocast_dtype(device())).removeprefix("torch."),
    }
