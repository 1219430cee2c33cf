"""The machine under the notebooks: device, precision, threads, seeds."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import platform
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

Item, Found = TypeVar("Item"), TypeVar("Found")

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h

_one_thread_only = False  # whether this process is held to one thread


def device(name: str = "auto") -> torch.device:
    """Return the device to compute on: CUDA, else Apple's MPS, else the CPU.

    Args:
        name: "auto", or a device that PyTorch knows ("cpu", "cuda", "cuda:1", "mps").

    Raises:
        ValueError: the device is not on this machine.
    """
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "auto":
        return torch.device(found)
    wanted = torch.device(name)
    if wanted.type not in {"cpu", found}:
        raise ValueError(f"device {name!r} is not on this machine; use 'auto' (here: {found})")
    return wanted


def autocast_dtype(where: torch.device) -> torch.dtype | None:
    """Return the half precision in which this device is faster than float32, or None where it has none.

    On CPUs bfloat16 needs AVX512-BF16 or AMX: emulated, it is slower than float32.

    Args:
        where: the device that will compute.
    """
    if where.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if where.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return None


def _cpu_has_bfloat16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check()) or torch.backends.mkldnn.is_available() and _cpu_flag("avx512_bf16")


def _cpu_flag(flag: str) -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return any(flag in line for line in lines if line.startswith("flags"))
    except OSError:  # not Linux
        return False


@functools.cache
def has_numba() -> bool:
    """Return whether Numba can be had, which compiles what a training on a CPU computes itself.

    It comes later than others to a new Python or NumPy, and then says so when it is imported. It also takes
    some 200 MB of address space, which may be limited.
    """
    try:
        import numba  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def free_memory(where: torch.device) -> int:
    """Return the bytes that a device has free, on CPUs those that can be had without swapping.

    Args:
        where: the device; where the system does not say, four gigabytes are assumed.
    """
    if where.type == "cuda":
        return torch.cuda.mem_get_info(where)[0]
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            available = {name: amount for name, amount, *_ in (line.split() for line in lines)}
        return int(available["MemAvailable:"]) * 1024
    except (OSError, KeyError):  # not Linux
        return 4 * 2**30


def keep_memory() -> bool:
    """Let the process keep blocks of memory of up to 32 MB that it frees; return whether it will.

    The C library of Linux gives such blocks back at once, and the kernel then clears every page of the next
    one: with maps of 48 by 48 pixels that was a third of a training's time. At most 512 MB are kept.
    """
    kept = _libc("mallopt", _MMAP_THRESHOLD, 32 * 2**20) and _libc("mallopt", _TRIM_THRESHOLD, 512 * 2**20)
    return bool(kept)


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep larger blocks too while the context lasts, and give back at its end what is free by then.

    For work that asks for the same blocks again and again: 128 faces in 32 maps of 48 by 48 pixels are 38 MB.
    Blocks that are meant to stay are better made before it, since free memory below them cannot be given
    back. Where a limit is set on the address space (``ulimit -v``) nothing more is kept: gaps between blocks
    would count, and smaller batches would fit.
    """
    kept = keep_memory() and not _address_space_is_limited() and _libc("mallopt", _MMAP_MAX, 0)
    try:
        yield
    finally:
        if kept:
            _libc("mallopt", _MMAP_MAX, 65536)  # as the library starts with
            _libc("malloc_trim", 0)


def _address_space_is_limited() -> bool:
    import resource  # Unix alone has it, as it has the C library that is asked

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _libc(function: str, *values: int) -> int:
    """Call a function of the GNU C library; where there is another, return 0."""
    try:
        return getattr(ctypes.CDLL(None), function)(*values)
    except (AttributeError, OSError, TypeError):
        return 0


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (every device), so that what follows is the same on each run.

    Args:
        seed: any integer from 0 to 2**32 - 1.

    Raises:
        ValueError: the seed is outside that range.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to {2**32 - 1}, not {seed}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_device(seed: int, where: torch.device) -> None:
    """Seed PyTorch's random numbers of the CPU and of the kind of device that is used.

    ``torch.manual_seed`` seeds every kind there could be, and for each that is not in use it writes down the
    whole stack of calls: 0.6 ms a step in a notebook, where a small network takes 16.

    Args:
        seed: any integer from 0 to 2**32 - 1.
        where: the device.
    """
    torch.default_generator.manual_seed(seed)
    if where.type == "cuda":
        torch.cuda.manual_seed_all(seed)
    elif where.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def threads(num: int) -> Iterator[None]:
    """Let PyTorch compute on so many threads meanwhile.

    Sharing out the small operations of a single face saves nothing, and where another process keeps a core
    busy each of them waits for that core: what takes 5 ms on one thread took 170 on two.

    Args:
        num: 1 or more; after :func:`hold_to_one_thread` it counts as 1.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if _one_thread_only else num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def hold_to_one_thread() -> None:
    """Let PyTorch compute on one thread from now on, whatever :func:`threads` is asked for.

    A forked process calls it first: it has none of OpenMP's threads, and would wait for them for ever.
    """
    global _one_thread_only
    _one_thread_only = True
    torch.set_num_threads(1)


def spread(function: Callable[[Item], Found], items: Iterable[Item], num: int) -> list[Found]:
    """Return what a function makes of each item, in their order, on so many Python threads at once.

    Within each PyTorch computes on one thread only. It pays where a call takes long and lets go of the
    interpreter: sharing out every small operation would cost more than it saves.

    Args:
        function: of one item.
        items: of any number.
        num: threads, 1 or more; after :func:`hold_to_one_thread` it counts as 1.

    Raises:
        Exception: what a call raises, once those under way have ended.
    """
    with threads(1):
        if num == 1 or _one_thread_only:
            return [function(item) for item in items]
        with ThreadPoolExecutor(num, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))


def idle_threads(seconds: float = 0.05) -> int:
    """Return on how many threads to compute: PyTorch's number, or fewer where others keep cores busy.

    With three busy processes on two cores a training on two threads took five to twelve times as long as on
    one. Where ``OMP_NUM_THREADS`` is set, or the system does not say what is idle, PyTorch's number stays.

    Args:
        seconds: how long to watch the processor.
    """
    wanted, before = torch.get_num_threads(), _ticks()
    if wanted == 1 or before is None or "OMP_NUM_THREADS" in os.environ:
        return wanted
    time.sleep(seconds)
    idle, every = (now - then for now, then in zip(_ticks(), before, strict=True))
    cores = round(idle / max(every, 1) * (os.cpu_count() or 1))
    return max(1, min(wanted, cores))


def _ticks() -> tuple[int, int] | None:
    """Return for how many hundredths of a second all cores have been idle, and have run in all."""
    try:
        with open("/proc/stat", encoding="utf-8") as lines:
            spent = [int(number) for number in lines.readline().split()[1:9]]
        return spent[3] + spent[4], sum(spent)  # idle and waiting for a disk
    except (OSError, ValueError, IndexError):  # not Linux
        return None


def machine() -> dict[str, str | int]:
    """Return what a figure depends on: processor, threads, accelerator and versions, as plain types."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": _version_of("numba"),
        "cpu_count": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "half_precision": str(autocast_dtype(device())).removeprefix("torch."),
    }


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
