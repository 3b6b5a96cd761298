"""Axes as products of factors: what is lined up becomes one, what is fixed stays.

A program lines axes up where it adds, multiplies or sums over them together
(`_axes_rules`), and fixes what it treats by position. What is left may be permuted.
"""

from math import prod
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


class Factor:
    """A factor of an axis: permutable, fixed, or replaced by others."""

    def __init__(self, size: int):
        self.size, self.fixed = size, False
        self.parts: list[Factor] | None = None


Axis = list[Factor]


class Axes:
    """The axes of a program's arrays, lined up one pair after the other."""

    def __init__(self):
        self.seen: list[list[Axis]] = []
        self.contracted: list[tuple[list[Axis], list[Axis], list, list]] = []

    def fresh(self, shape) -> list[Axis]:
        axes = [[Factor(n)] for n in shape]
        self.seen.append(axes)
        return axes

    def constant(self, value: Any) -> list[Axis]:
        """Its order counts along the axes in which it varies."""
        axes = self.fresh(np.shape(value))
        if isinstance(value, Tracer) or np.size(value) > 2**24:
            self.fix(axes)
            return axes
        x = np.asarray(jax.device_get(value)) if np.ndim(value) else None
        for i, axis in enumerate(axes):
            assert x is not None
            if x.dtype == object or not (x == np.take(x, [0], axis=i)).all():
                self.fix([axis])
        return axes

    def flat(self, axis: Axis) -> Axis:
        """Its factors as they are now."""
        found = []
        for factor in axis:
            if factor.parts is not None:
                found += self.flat(factor.parts)
            elif factor.size != 1:
                found.append(factor)
        return found

    def size(self, axis: Axis) -> int:
        return prod(factor.size for factor in self.flat(axis))

    def fix(self, axes: list[Axis]) -> None:
        for axis in axes:
            for factor in self.flat(axis):
                factor.fixed = True

    def same(self, a: Axis, b: Axis) -> None:
        """Lines up two axes of one size."""
        a, b = self.flat(a), self.flat(b)
        while a and b:
            x, y = a[-1], b[-1]
            if x is y:
                a, b = a[:-1], b[:-1]
            elif x.size == y.size:
                y.fixed = x.fixed = x.fixed or y.fixed
                y.parts = [x]
                a, b = a[:-1], b[:-1]
            else:
                big, small = (x, y) if x.size > y.size else (y, x)
                if big.size % small.size:  # two ways to see an axis: leave it
                    self.fix([a, b])
                    return
                self.split(big, [big.size // small.size, small.size])
            a, b = self.flat(a), self.flat(b)

    def split(self, factor: Factor, sizes: list[int]) -> None:
        factor.parts = [Factor(n) for n in sizes]
        for part in factor.parts:
            part.fixed = factor.fixed
