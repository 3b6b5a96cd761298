"""How fast a run is: its clock, the part of the peak that it reaches, and its trace."""

import contextlib
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Dense FLOP/s of one device, by the start of its `device_kind`: of bfloat16, and of
# float32 as XLA multiplies it by default (in one bfloat16 pass on TPUs, as TF32 on
# GPUs). Where one start is the start of another, the longer one counts. A device is a
# whole chip, from v4 on also on TPUs.
PEAK = {
    # cloud.google.com/tpu/docs, the page of each version: peak compute per chip.
    "TPU v4": (275e12, 275e12),
    "TPU v5 lite": (197e12, 197e12),  # v5e
    "TPU v5e": (197e12, 197e12),
    "TPU v5": (459e12, 459e12),  # v5p
    "TPU v5p": (459e12, 459e12),
    "TPU v6 lite": (918e12, 918e12),  # v6e
    "TPU v6e": (918e12, 918e12),
    # nvidia.com, A100 datasheet: the columns without sparsity.
    "NVIDIA A100": (312e12, 156e12),
    # H100 datasheet: 1979 and 989 with sparsity for SXM, 1513 and 756 for PCIe, 1671
    # and 835 for NVL; half of that without.
    "NVIDIA H100": (989.5e12, 494.5e12),
    "NVIDIA H100 PCIe": (756.5e12, 378e12),
    "NVIDIA H100 NVL": (835.5e12, 417.5e12),
    # H200 datasheet: as H100, SXM and NVL.
    "NVIDIA H200": (989.5e12, 494.5e12),
    "NVIDIA H200 NVL": (835.5e12, 417.5e12),
    # HGX B200 datasheet, one GPU: 4.5 and 2.2 PFLOP/s with sparsity.
    "NVIDIA B200": (2250e12, 1100e12),
}
# Starts like one of the above, and is a smaller chip, or a part of one.
OTHER = re.compile(r"TPU v4 lite|.*\bMIG\b")


def peak(kind: str, dtype: str) -> float | None:
    """FLOP/s of a device of that `device_kind`; None where it is not known."""
    known = [start for start in PEAK if re.match(rf"{start}(?!\w)", kind)]
    column = {"bfloat16": 0, "float16": 0, "float32": 1}.get(str(dtype))
    if not known or column is None or OTHER.match(kind):
        return None
    return PEAK[max(known, key=len)][column]


def mfu(
    flops_per_step: float | None, seconds: float, devices: Sequence, dtype: str
) -> float | None:
    """The part of the devices' peak that a step of so many FLOPs, over all devices,
    reaches; None where a peak or the FLOPs are not known."""
    peaks = [peak(str(device.device_kind), dtype) for device in devices]
    if not flops_per_step or not seconds or not peaks or None in peaks:
        return None
    return flops_per_step / seconds / sum(peaks)


class Clock:
    """Times training steps, and nothing else: no compilation, evaluation or saving."""

    def __init__(
        self,
        total: float = 0.0,
        *,
        unit: str = "tokens",
        mfu: Callable[[float], float | None] = lambda step_s: None,
    ):
        """`total`: seconds of earlier sessions. `mfu`: from the seconds of a step."""
        self._total, self._unit, self._mfu = total, unit, mfu
        self._laps, self._spent, self._units = [], 0.0, 0

    @contextlib.contextmanager
    def lap(self, *, steps: int = 1) -> Iterator[None]:
        """Around one step, or several; whoever opens it waits inside for what the
        devices compute."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self._laps.append(seconds / steps)
        self._spent += seconds

    def saw(self, units: float) -> None:
        """How many tokens or images the last lap went through."""
        self._units += units

    def read(self) -> dict[str, float]:
        """Of the laps since the last read: a step's median; and the time of all."""
        self._total += self._spent
        reading = {"train_s": self._total}
        if self._laps:
            reading["step_s"] = step_s = statistics.median(self._laps)
            reading[f"{self._unit}_per_s"] = self._units / self._spent
            part = self._mfu(step_s)
            if part is not None:
                reading["mfu"] = part
        self._laps, self._spent, self._units = [], 0.0, 0
        return reading


@contextlib.contextmanager
def profile(
    steps: int, folder: Path, say: Callable[[str], None] = print, *, after: int = 10
) -> Iterator[Callable[[int], contextlib.AbstractContextManager]]:
    """Traces `steps` steps, once `after` of this session are done; 0 traces none.

    Yields what to open around each step, with the step's number, and to wait inside of
    for its result. `say` gets where the trace is and how to open it. Of several
    processes the first traces.
    """
    import jax

    seen, tracing = 0, False
    steps = steps if jax.process_index() == 0 else 0

    def stop() -> None:
        nonlocal tracing
        tracing = False
        jax.profiler.stop_trace()
        say(f"trace of {seen - after} steps in {folder}; to see it: pip install xprof,")
        say(f"  then: xprof --port 8791 --logdir {folder}, and open localhost:8791")

    @contextlib.contextmanager
    def traced(step: int) -> Iterator[None]:
        nonlocal seen, tracing
        if steps and seen == after:
            folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(folder)
            tracing = True
        if tracing:
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                yield
        else:
            yield
        seen += 1
        if tracing and seen == after + steps:
            stop()

    try:
        yield traced
    finally:
        if tracing:
            stop()
        elif steps and seen <= after:
            say(f"no trace: it begins after {after} steps, and this session did {seen}")
