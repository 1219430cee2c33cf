"""Call a student's function on fresh random inputs, and say in one line how it did."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Case = dict[str, Any]  # the arguments of one call by name, in the order of the signature
Draw = Callable[[np.random.Generator], Case]
Complaint = Callable[[Case, Any], str | None]  # of arguments and result: what is wrong with it, or None
Check = Callable[[Callable], bool]  # of a student's function: whether it was right on every input


def equals(draw: Draw, tolerance: float = 1e-5, trials: int = 20) -> Callable[[Callable], Check]:
    """Make of the reference that is decorated the check that a function returns what it returns."""

    def decorate(reference: Callable) -> Check:
        def complaint(case: Case, result: Any) -> str | None:
            return _difference(reference(*copy.deepcopy(case).values()), result, tolerance)

        def check(answer: Callable) -> bool:
            return judge(reference.__name__.removeprefix("check_"), answer, draw, complaint, trials)

        check.__name__, check.__doc__ = reference.__name__, reference.__doc__
        return check

    return decorate


def judge(exercise: str, answer: Callable, draw: Draw, complaint: Complaint, trials: int = 20) -> bool:
    """Print a tick or the first thing that is wrong, and return whether all trials were right."""
    random = np.random.default_rng()  # not seeded: nobody can write down what will be asked
    for _ in range(trials):
        case = draw(random)
        passed = copy.deepcopy(case)
        try:
            result = answer(*passed.values())
            changed = [name for name, value in case.items() if _differs(value, passed[name])]
            wrong = f"it changed its argument {changed[0]}; work on a copy" if changed else None
            wrong = wrong or complaint(passed, result)
        except NotImplementedError:
            print(f"✍️ {exercise}: waits for your answer")
            return False
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # it never stops the notebook
            line = traceback.extract_tb(error.__traceback__)[-1].lineno
            what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
            wrong = f"it raised {what} (line {line})"
        if wrong is not None:
            print(f"❌ {exercise}: with {', '.join(map(_shown, case, case.values()))} {wrong}")
            return False
    print(f"✅ {exercise}: right on {trials} random inputs")
    return True


def _differs(before: Any, after: Any) -> bool:
    arrays = isinstance(before, np.ndarray | torch.Tensor)
    return arrays and not np.array_equal(before, after, equal_nan=True)


def _difference(reference: Any, result: Any, tolerance: float) -> str | None:
    if result is None:
        return "it returned nothing; is there a `return`?"
    expected, named = np.asarray(reference), type(result).__name__
    try:
        returned = np.asarray(result.detach().cpu() if isinstance(result, torch.Tensor) else result)
    except ValueError:  # rows of several lengths
        returned = np.array(named)
    if returned.dtype.kind not in "bifu":
        return f"it returned a {named}, not numbers"
    if isinstance(reference, torch.Tensor) and not isinstance(result, torch.Tensor):
        return f"a tensor was expected, a {named} came"
    if returned.shape != expected.shape:
        return f"the shape {expected.shape} was expected, {returned.shape} came"
    if expected.dtype.kind == "b" and returned.dtype.kind != "b":
        return f"true and false were expected, {returned.dtype} came"
    # relative to the largest value expected, or to 1 where that is smaller
    margin = tolerance * max(1.0, float(np.max(np.abs(expected), initial=0)))
    far = np.argwhere(~(np.abs(returned.astype(float) - expected) <= margin))  # a NaN is far too
    if not len(far):
        return None
    at = tuple(far[0].tolist())
    return f"{expected[at]} was expected{f' at {list(at)}' if at else ''}, {returned[at]} came"


def _shown(name: str, value: Any) -> str:
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.asarray(value)
        if array.size > 12:
            return f"{name}=[{' x '.join(map(str, array.shape))} numbers]"
        return f"{name}=" + np.array2string(array, precision=4, separator=", ").replace("\n", "")
    return f"{name}={type(value).__name__ if isinstance(value, torch.nn.Module) else repr(value)}"
