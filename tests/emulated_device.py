"""A second device made of CPU memory, for machines without one.

Within ``emulated("cuda")`` or ``emulated("mps")`` tensors that are sent there say so, and what the device
would refuse is refused: mixing tensors of two devices, float64 on Apple's, handing memory to NumPy. What
makes a program wait for a GPU is counted by the line of ``helpers`` that does it (``device.syncs``). A copy
that nobody waits for holds zeros until an event or a waiting operation. The arithmetic itself is the CPU's.
"""

from __future__ import annotations

import collections
import contextlib
import traceback
from collections.abc import Iterator
from unittest import mock

import torch
import torch._dynamo  # before anything is replaced: it reads all of torch when it is first imported
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
READ = {aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default, aten.equal.default}
SIZED = {aten.nonzero.default, aten.masked_select.default, aten._unique2.default}
SIZED |= {aten.repeat_interleave.Tensor, aten.unique_dim.default}
"""Operations whose result's size or value the CPU must know before it goes on."""
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class Refused(RuntimeError):
    """What a real device would not do."""


class There(torch.Tensor):
    """A tensor that says it lies on the device; ``held`` is its memory."""

    @staticmethod
    def __new__(cls, held: torch.Tensor, home: Device) -> There:
        like = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
        made = torch.Tensor._make_subclass(
            cls, like, False, dispatch_device=True, device_for_backend_keys=home.device
        )
        made.held, made.home = held, home
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: self.home.device)
    is_cpu = is_meta = property(lambda self: False)
    is_cuda = property(lambda self: self.home.device.type == "cuda")
    is_mps = property(lambda self: self.home.device.type == "mps")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        home = next(each.home for each in tree_leaves((args, kwargs)) if isinstance(each, There))
        return home.perform(func, args, kwargs or {})

    def __deepcopy__(self, memo):
        copied = There(self.held.detach().clone(), self.home)
        if getattr(self, "_is_param", False):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __repr__(self, **_):
        return f"There({self.held!r}, {self.home.device})"

    def tolist(self):
        self.home.waits("tolist")
        return self.held.tolist()

    def numpy(self, *, force=False):
        raise TypeError(f"can't convert {self.home.device} device type tensor to numpy")

    __array__ = numpy


class Device(TorchDispatchMode):
    """The device: what was refused, what made the program wait, and what has not arrived yet."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.device = torch.device(kind, 0)
        self.syncs: collections.Counter = collections.Counter()
        self.lacking: collections.Counter = collections.Counter()
        self.on_its_way: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.moving = 0

    def waits(self, what: str) -> None:
        self.syncs[what, line_of_helpers()] += 1
        self.arrive()

    def arrive(self) -> None:
        for target, value in self.on_its_way:
            torch.Tensor.copy_(target, value)
        self.on_its_way.clear()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.perform(func, args, kwargs or {})

    def perform(self, func, args, kwargs):
        if func is torch.ops.prim.device.default:
            return self.device if self.moving else torch.device("meta")
        leaves = tree_leaves((args, kwargs))
        here = [each for each in leaves if isinstance(each, There)]
        if not here and not any(self.is_it(each) for each in leaves if isinstance(each, torch.device)):
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        if func is aten._to_copy.default:
            moved = self.move(func, args[0], kwargs)
            if moved is not None:
                return moved
        self.look_at(func, args, here, leaves)
        if self.device.type == "mps":
            self.look_at_mps(func, args, kwargs)
        return self.compute(func, args, kwargs, here)

    def is_it(self, device) -> bool:
        return torch.device(device).type in (self.device.type, "meta")

    def move(self, func, source, kwargs):
        """Return a copy that goes from one device to the other, or None where it stays."""
        plain = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}
        target, later = kwargs.get("device"), kwargs.get("non_blocking")
        if target is None or isinstance(source, There) == self.is_it(target):
            return None
        if not isinstance(source, There):
            self.refuse_float64(kwargs.get("dtype") or source.dtype)
            if not later:
                self.waits("copy to the device")
            return There(func(source, **plain), self)
        value = func(source.held, **plain)
        if not later:
            self.waits("copy to the CPU")
            return value
        target = torch.zeros_like(value)  # what lies there until the copy is done
        self.on_its_way.append((target, value))
        return target

    def look_at(self, func, args, here, leaves) -> None:
        """Refuse a mix of devices, and count what waits."""
        strangers = [e for e in leaves if isinstance(e, torch.Tensor) and not isinstance(e, There) and e.ndim]
        if func is aten.copy_.default:
            if strangers and not (len(args) > 2 and args[2]):
                self.waits("copy_ between devices")
        elif here and strangers and func in INDEXED:
            self.waits("index on the CPU")
        elif here and strangers:
            raise Refused(f"Expected all tensors to be on the same device: {func} at {line_of_helpers()}")
        if func in READ or func in SIZED:
            self.waits(func._schema.name)
        if func is aten.index.Tensor and any(e is not None and e.dtype == torch.bool for e in args[1]):
            self.waits("boolean index")

    def look_at_mps(self, func, args, kwargs) -> None:
        """Refuse float64, and note what PyTorch's builds for Apple's chips lack."""
        self.refuse_float64(kwargs.get("dtype"))
        name = func._schema.name
        if name.endswith("grid_sampler_2d") and args[3] == 1:
            self.lacking["grid_sample with border padding", line_of_helpers()] += 1
        if name.endswith("_adaptive_avg_pool2d") and any(
            size % out for size, out in zip(args[0].shape[-2:], args[1], strict=True)
        ):
            self.lacking["adaptive pooling to a size that does not divide", line_of_helpers()] += 1

    def compute(self, func, args, kwargs, here):
        held, words = tree_map(lambda e: e.held if isinstance(e, There) else e, (args, kwargs))
        if "device" in words:
            words["device"] = torch.device("cpu")
        words.pop("pin_memory", None)
        out = func(*held, **words)
        if func in READ:
            return out

        def wrap(value):
            if not isinstance(value, torch.Tensor):
                return value
            self.refuse_float64(value.dtype)
            same = [each for each in here if each.held is value]  # of an operation in place
            return same[0] if same else There(value, self)

        out = tree_map(wrap, out)
        if here and not func._schema.is_mutable:
            return return_and_correct_aliasing(func, args, kwargs, out)
        return out

    def refuse_float64(self, dtype) -> None:
        if self.device.type == "mps" and dtype == torch.float64:
            raise TypeError(f"the MPS framework doesn't support float64 (at {line_of_helpers()})")


def line_of_helpers() -> str:
    """Return the innermost line of the package that is being run."""
    for frame in reversed(traceback.extract_stack()):
        _, inside, rest = frame.filename.replace("\\", "/").rpartition("/helpers/")
        if inside:
            return f"{rest}:{frame.lineno} {frame.name}"
    return "elsewhere"


class Named(TorchFunctionMode):
    """Takes "cuda" for "cuda:0", where PyTorch would ask the driver, and makes new tensors by a copy."""

    def __init__(self, home: Device) -> None:
        super().__init__()
        self.home = home

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name == "to" or "device" in kwargs:
            args, kwargs = tuple(map(self.named, args)), {k: self.named(v) for k, v in kwargs.items()}
        if name == "to" and len(args) > 1 and isinstance(args[1], There):
            args = (args[0], args[1].device, args[1].dtype, *args[2:])
        if name in ("tensor", "as_tensor") and kwargs.get("device") == self.home.device:
            del kwargs["device"]
            return func(*args, **kwargs).to(self.home.device)
        if name not in ("to", "cpu", "cuda", "type_as"):
            return func(*args, **kwargs)
        self.home.moving += 1
        try:
            return func(*args, **kwargs)
        finally:
            self.home.moving -= 1

    def named(self, value):
        bare = isinstance(value, str | torch.device) and str(value) == self.home.device.type
        return self.home.device if bare else value


def _module_to(home: Device):
    move = torch.nn.Module.to

    def to(self, *args, **kwargs):
        there = [*self.parameters(), *self.buffers()]
        device = kwargs.get("device", args[0] if args else None)
        wanted = isinstance(device, str | torch.device) and home.is_it(device)
        if wanted and all(isinstance(tensor, There) for tensor in there):
            return self
        return move(self, *args, **kwargs)

    return to


@contextlib.contextmanager
def emulated(kind: str, bfloat16: bool = True) -> Iterator[Device]:
    """Let "cuda" or "mps" be a device of this machine while the context lasts."""
    if kind == "cuda":
        torch._C._ensureCUDADeviceGuardSet()
    home = Device(kind)

    class Event:
        def record(self, *_):
            """Nothing: what was asked for before arrives when somebody waits."""

        def synchronize(self):
            home.arrive()

        def query(self):
            home.arrive()
            return True

    yes, nothing = (lambda *_, **__: True), (lambda *_, **__: None)
    cuda = dict.fromkeys(
        ("_lazy_init", "manual_seed_all", "manual_seed", "empty_cache", "synchronize"), nothing
    )
    cuda |= {"_initialized": True, "is_available": yes, "Event": Event, "device_count": lambda: 1}
    cuda |= {"is_bf16_supported": lambda *_, **__: bfloat16, "mem_get_info": lambda *_: (2**36, 2**36)}
    cuda |= {"get_device_name": lambda *_: "emulated", "current_device": lambda: 0}
    cuda |= {"get_device_capability": lambda *_: (9, 0), "get_arch_list": lambda: ["sm_75", "sm_90"]}
    mps = {"manual_seed": nothing, "empty_cache": nothing, "synchronize": home.arrive}
    with contextlib.ExitStack() as stack:
        for name, value in (cuda if kind == "cuda" else mps).items():
            stack.enter_context(mock.patch.object(getattr(torch, kind), name, value))
        if kind == "mps":
            stack.enter_context(mock.patch.object(torch.backends.mps, "is_available", yes))
        else:
            stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", lambda self, *_: self))
            off = "amp_definitely_not_available"
            for module in (torch.cuda.amp.common, torch.amp.grad_scaler):
                stack.enter_context(mock.patch.object(module, off, return_value=False, create=True))
        check = "_accelerator_graph_capture_health_check"
        stack.enter_context(mock.patch.object(torch.optim.Optimizer, check, nothing, create=True))
        fork = {"return_value": contextlib.nullcontext()}
        stack.enter_context(mock.patch.object(torch.random, "fork_rng", **fork))
        stack.enter_context(mock.patch.object(torch.nn.Module, "to", _module_to(home)))
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, False)
        stack.enter_context(home)
        stack.enter_context(Named(home))
        yield home
