"""Call a student's function on fresh random inputs, and say in one line how it did."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

TRIALS = 20

Case = dict[str, Any]  # the arguments of one call by name, in the order of the signature
Draw = Callable[[np.random.Generator], Case]
Complaint = Callable[[Case, Any], str | None]  # of arguments and result: what is wrong with it, or None
Check = Callable[[Callable], bool]  # of a student's function: whether it was right on every input


def equals(draw: Draw, tolerance: float = 1e-5, trials: int = TRIALS) -> Callable[[Callable], Check]:
    """Make of the reference that is decorated the check that a function returns what it returns."""

    def decorate(reference: Callable) -> Check:
        exercise = reference.__name__.removeprefix("check_")

        def complaint(case: Case, result: Any) -> str | None:
            return _difference(reference(*copy.deepcopy(case).values()), result, tolerance)

        def check(answer: Callable) -> bool:
            return judge(exercise, answer, draw, complaint, trials)

        check.__name__, check.__doc__ = reference.__name__, reference.__doc__
        return check

    return decorate


def judge(exercise: str, answer: Callable, draw: Draw, complaint: Complaint, trials: int = TRIALS) -> bool:
    """Print a tick or the first thing that is wrong, and return whether all trials were right."""
    random = np.random.default_rng()  # not seeded: nobody can write down what will be asked
    for _ in range(trials):
        case = draw(random)
        wrong = _wrong(answer, case, complaint)
        if wrong is not None:
            print(f"{wrong[0]} {exercise}: {wrong[1]}")
            return False
    print(f"✅ {exercise}: right on {trials} random inputs")
    return True


def _wrong(answer: Callable, case: Case, complaint: Complaint) -> tuple[str, str] | None:
    passed = copy.deepcopy(case)
    try:
        result = answer(*passed.values())
        changed = next((name for name, value in case.items() if _differs(value, passed[name])), None)
        found = f"it changed its argument {changed}; work on a copy" if changed else complaint(passed, result)
    except NotImplementedError:
        return "✍️", "waits for your answer"
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # a student's error never stops the notebook
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        found = f"it raised {what} (line {line})"
    return None if found is None else ("❌", f"with {', '.join(map(_shown, case, case.values()))} {found}")


def _differs(before: Any, after: Any) -> bool:
    if not isinstance(before, np.ndarray | torch.Tensor):
        return False
    before, after = np.asarray(before), np.asarray(after)
    return not np.array_equal(before, after, equal_nan=before.dtype.kind == "f")


def _difference(reference: Any, result: Any, tolerance: float) -> str | None:
    if result is None:
        return "it returned nothing; is there a `return`?"
    expected = _array(reference)
    try:
        returned = _array(result)
    except (TypeError, ValueError):
        return f"it returned a {type(result).__name__}, not numbers"
    if returned.shape != expected.shape:
        return f"the shape {expected.shape} was expected, {returned.shape} came"
    if expected.dtype.kind == "b" and returned.dtype.kind != "b":
        return f"true and false were expected, {returned.dtype} came"
    # relative to the largest value expected, or to 1 where that is smaller
    margin = tolerance * max(1.0, float(np.max(np.abs(expected), initial=0)))
    far = ~(np.abs(returned.astype(float) - expected) <= margin)  # not > margin: a NaN is far too
    if not far.any():
        return None
    at = tuple(int(i) for i in np.argwhere(far)[0])
    where = f" at {list(at)}" if at else ""
    return f"{_number(expected[at])} was expected{where}, {_number(returned[at])} came"


def _array(value: Any) -> np.ndarray:
    array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
    if array.dtype.kind not in "bifu":
        raise TypeError(value)
    return array


def _number(value: Any) -> str:
    return str(value) if np.asarray(value).dtype.kind in "bui" else f"{float(value):.6g}"


def _shown(name: str, value: Any) -> str:
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.asarray(value)
        if array.size > 12:
            return f"{name}=[{' x '.join(map(str, array.shape))} numbers]"
        return f"{name}=" + np.array2string(array, precision=4, separator=", ").replace("\n", "")
    return f"{name}={type(value).__name__ if isinstance(value, torch.nn.Module) else repr(value)}"
