"""What a compiled step sends between devices, read from its HLO."""

import math
import re
from typing import NamedTuple

import numpy as np

KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2}
BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8}


class Collective(NamedTuple):
    """One instruction, run `times` in a step by groups of `group` devices."""

    kind: str
    shape: str  # of the result on a device
    bytes: int  # of the result on a device
    group: int
    axes: tuple[str, ...]  # of the mesh that the group spans; () if it is not one of it
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step, by the ring algorithms: the least."""
        n = self.group
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "all-gather": (n - 1) / n,
            "reduce-scatter": n - 1,
            "all-to-all": (n - 1) / n,
            "collective-permute": 1,
        }
        return self.times * self.bytes * share[self.kind]


def collectives(hlo: str, mesh_shape: dict[str, int]) -> list[Collective]:
    """All of a compiled program's text; loops count as often as they run."""
    bodies, entry = _computations(hlo)
    found = []
    for name, times in _runs(bodies, entry).items():
        for line in bodies[name]:
            match = re.search(rf"= (\(.*?\)|\S+) ({KINDS})(-start)?\(", line)
            if match is None:
                continue
            shape, kind, begun = match.groups()
            shapes = re.findall(r"\w+\[[\d,]*\]", shape)
            if begun and kind in ("all-gather", "collective-permute"):
                shapes = shapes[len(shapes) // 2 :]  # after the operands
            groups = _groups(line, math.prod(mesh_shape.values()))
            if groups.shape[1] == 1:
                continue  # nobody to send to
            axes = _axes(groups, mesh_shape)
            size = sum(map(_bytes, shapes))
            found.append(
                Collective(kind, " ".join(shapes), size, groups.shape[1], axes, times)
            )
    return found


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation, and which of them is the entry."""
    bodies, entry, lines = {}, None, []
    for line in hlo.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if head:
            lines = bodies[head[2]] = []
            entry = head[2] if head[1] else entry
        else:
            lines.append(line)
    return bodies, entry


def _runs(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
    """How often each computation runs in one run of the entry."""
    calls = {
        name: [c for line in lines for c in _calls(line)]
        for name, lines in bodies.items()
    }
    runs = dict.fromkeys(bodies, 0)

    def visit(name, times):
        runs[name] += times
        for called, n in calls[name]:
            visit(called, times * n)

    visit(entry, 1)
    return {name: times for name, times in runs.items() if times}


def _calls(line: str) -> list[tuple[str, int]]:
    loop = re.search(r"body=%?([\w.-]+)", line)
    if loop:
        trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
        if trips is None:
            raise ValueError(f"a loop of unknown length: {line.strip()[:80]}")
        return [(loop[1], int(trips[1]))]
    one = re.findall(
        r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.-]+)", line
    )
    branches = re.search(r"branch_computations=\{(.*?)\}", line)
    if branches:
        one += [name.strip().lstrip("%") for name in branches[1].split(",")]
    return [(name, 1) for name in one]


def _groups(line: str, devices: int) -> np.ndarray:
    """int[groups, devices of a group], from any of the ways in which XLA writes it."""
    pairs = re.search(r"source_target_pairs=\{(\{.*?\})\}", line)
    if pairs:  # a permutation: whoever sends at all, sends to one other
        return np.array(
            [
                [int(x) for x in p.split(",")]
                for p in re.findall(r"\{([\d,]+)\}", pairs[1])
            ]
        )
    listed = re.search(r"replica_groups=\{(\{.*?\})\}", line)
    if listed:
        return np.array(
            [
                [int(x) for x in p.split(",")]
                for p in re.findall(r"\{([\d,]+)\}", listed[1])
            ]
        )
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", line)
    if iota:
        return _iota(iota[2]).reshape(_numbers(iota[1]))
    mesh = re.search(
        r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{(.*?)\}", line
    )
    if mesh:
        sizes = {k: int(n) for k, n in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        names, over = list(sizes), re.findall(r"'(\w+)'", mesh[3])
        ids = _iota(mesh[2] or f"[{math.prod(sizes.values())}]").reshape(
            *sizes.values()
        )
        kept = [i for i, name in enumerate(names) if name not in over]
        moved = [names.index(name) for name in over]
        each = math.prod(sizes[name] for name in over)
        return ids.transpose(kept + moved).reshape(-1, each)
    if "replica_groups={}" in line:
        return np.arange(devices)[None]
    raise ValueError(f"unknown groups: {line.strip()[:80]}")


def _iota(text: str) -> np.ndarray:
    """Of [4,2]T(1,0): the numbers 0 to 7 in that shape, transposed."""
    shape, _, order = text.partition("T")
    ids = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return ids.transpose(_numbers(order)) if order else ids


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _axes(groups: np.ndarray, mesh_shape: dict[str, int]) -> tuple[str, ...]:
    """The mesh axes along which a group extends, if it has all devices of those."""
    places = np.unravel_index(groups, tuple(mesh_shape.values()))
    axes = [
        name
        for name, place in zip(mesh_shape, places, strict=True)
        if (place != place[:, :1]).any()
    ]
    whole = math.prod(mesh_shape[name] for name in axes) == groups.shape[1]
    return tuple(axes) if whole else ()


def _bytes(shape: str) -> int:
    kind, dims = re.fullmatch(r"(\w+)\[([\d,]*)\]", shape).groups()
    return BYTES[kind] * math.prod(int(d) for d in dims.split(",") if d)
