"""Call a reader's function on fresh random inputs, and say in one line how it did."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

TRIALS = 20

Case = dict[str, Any]
"""The arguments of one call by name, in the order of the signature."""

Complaint = Callable[[Case, Any], str | None]
"""What is wrong with a result, or None."""


def judge(
    answer: Callable, draw: Callable[[np.random.Generator], Case], complaint: Complaint, trials: int = TRIALS
) -> None:
    """Print a tick, or the first thing that is wrong; nothing that the answer raises gets out.

    Args:
        answer: the reader's function.
        draw: makes the arguments of one call.
        complaint: looks at a result.
        trials: number of calls.
    """
    name, random = getattr(answer, "__name__", "this"), np.random.default_rng()
    for _ in range(trials):
        case = draw(random)
        wrong = _wrong(answer, case, complaint)
        if wrong is not None:
            print(f"{wrong[0]} {name}: {wrong[1]}")
            return
    print(f"✅ {name}: right on {trials} random inputs")


def _wrong(answer: Callable, case: Case, complaint: Complaint) -> tuple[str, str] | None:
    given = copy.deepcopy(case)
    try:
        result = answer(*given.values())
        found = _spoiled(case, given) or complaint(given, result)
    except NotImplementedError:
        return "✍️", "waits for your answer"
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        found = f"it raised {what} (line {line})"
    return None if found is None else ("❌", f"with {_shown(case)} {found}")


def _spoiled(before: Case, after: Case) -> str | None:
    for name, value in before.items():
        if isinstance(value, np.ndarray | torch.Tensor) and not _equal(value, after[name]):
            return f"it changed its argument {name}; work on a copy"
    return None


def _equal(a: Any, b: Any) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")


def equals(reference: Callable, tolerance: float = 1e-5) -> Complaint:
    """Return a complaint about every result that is not the reference's, in shape or in value.

    Args:
        reference: function of the same arguments.
        tolerance: how far a value may be off, relative to the largest one expected (at least to 1).
    """

    def complaint(case: Case, result: Any) -> str | None:
        if result is None:
            return "it returned nothing; is there a `return`?"
        expected = _array(reference(*copy.deepcopy(case).values()))
        try:
            came = _array(result)
        except (TypeError, ValueError):
            return f"it returned a {type(result).__name__}, not numbers"
        if came.shape != expected.shape:
            return f"the shape {expected.shape} was expected, {came.shape} came"
        if expected.dtype.kind == "b" and came.dtype.kind != "b":
            return f"true and false were expected, {came.dtype} came"
        return _different(expected, came, tolerance)

    return complaint


def _different(expected: np.ndarray, came: np.ndarray, tolerance: float) -> str | None:
    margin = tolerance * max(1.0, float(np.max(np.abs(expected), initial=0)))
    far = ~(np.abs(came.astype(float) - expected) <= margin)  # not > margin: a NaN is far too
    if not far.any():
        return None
    at = tuple(int(i) for i in np.argwhere(far)[0]) if far.ndim else ()
    where = f" at {list(at)}" if at else ""
    return f"{_number(expected[at])} was expected{where}, {_number(came[at])} came"


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.dtype.kind not in "bifu":
        raise TypeError(value)
    return array


def _number(value: Any) -> str:
    return str(value) if np.asarray(value).dtype.kind in "bui" else f"{float(value):.6g}"


def _shown(case: Case) -> str:
    return ", ".join(f"{name}={_brief(value)}" for name, value in case.items())


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.asarray(value)
        if array.size <= 12:
            return np.array2string(array, precision=4, separator=", ").replace("\n", "")
        return f"[{' x '.join(map(str, array.shape))} numbers]"
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    return repr(value)
