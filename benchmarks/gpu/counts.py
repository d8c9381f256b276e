"""Figures of a compiled GPU program: kernels, bytes, arithmetic, communication, and a roofline."""

import dataclasses
from collections.abc import Callable, Iterable

from benchmarks.gpu.card import Card
from benchmarks.gpu.hlo import Instruction, Module, parse
from benchmarks.gpu.kernels import Kernel, kernels

SHORT = 3e-6  # seconds that a launch costs at least
_FEW = 64  # summands that bfloat16 may add up without harm


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of one run of a program; a kernel in a loop counts as often as the loop turns.

    Attributes:
        kernels: launches of a kernel or a library's call, all-reduces left out.
        short: of these, how many take less than `SHORT` by their bytes and arithmetic.
        bytes: read and written in the device's memory.
        flops: of products and convolutions.
        products: number of products and convolutions by ("dot" or "convolution", number type).
        dilated: convolutions with a dilated kernel.
        low_sums: sums over more than `_FEW` numbers that are accumulated in bfloat16.
        transposes, transposed: kernels that transpose, and their bytes.
        scatters: kernels that scatter, by atomic operations.
        all_reduces, reduced: number and bytes of the all-reduces of one device.
        exposed: all-reduces that no kernel runs beside.
        seconds: the roofline, the sum over kernels of max(bytes / bandwidth, operations / rate).
    """

    kernels: int
    short: int
    bytes: float
    flops: float
    products: dict[tuple[str, str], int]
    dilated: int
    low_sums: int
    transposes: int
    transposed: float
    scatters: int
    all_reduces: int
    reduced: float
    exposed: int
    seconds: float


def count(text: str, card: Card) -> Counts:
    """Counts of the program whose `compiled.as_text()` this is, on `card`."""
    module = parse(text)
    launched = kernels(module)
    reduces = [kernel for kernel in launched if kernel.instruction.opcode.startswith("all-reduce")]
    computing = [kernel for kernel in launched if not kernel.instruction.opcode.startswith("all-reduce")]
    products: dict[tuple[str, str], int] = {}
    for kernel in computing:
        for product in kernel.products:
            key = product.kind, product.dtype
            products[key] = products.get(key, 0) + kernel.times
    transposing = [kernel for kernel in computing if kernel.has("transpose") and not kernel.products]
    return Counts(
        kernels=_launches(computing),
        short=_launches(kernel for kernel in computing if seconds(kernel, card) < SHORT),
        bytes=_total(computing, lambda kernel: kernel.bytes),
        flops=_total(computing, lambda kernel: sum(product.flops for product in kernel.products)),
        products=products,
        dilated=sum(kernel.times * product.dilated for kernel in computing for product in kernel.products),
        low_sums=sum(kernel.times * _low_sum(x, module) for kernel in computing for x in kernel.inside),
        transposes=_launches(transposing),
        transposed=_total(transposing, lambda kernel: kernel.bytes),
        scatters=_launches(kernel for kernel in computing if kernel.has("scatter")),
        all_reduces=_launches(reduces),
        reduced=_total(reduces, lambda kernel: kernel.read),
        exposed=_exposed(module),
        seconds=_total(computing, lambda kernel: seconds(kernel, card)),
    )


def seconds(kernel: Kernel, card: Card) -> float:
    """The least time that one launch of a kernel can take on `card`."""
    computing = sum(product.flops / card.rate(product.dtype) for product in kernel.products)
    return max(kernel.bytes / card.bandwidth, computing)


def _launches(some: Iterable[Kernel]) -> int:
    return sum(kernel.times for kernel in some)


def _total(some: Iterable[Kernel], value: Callable[[Kernel], float]) -> float:
    return sum(kernel.times * value(kernel) for kernel in some)


def _low_sum(x: Instruction, module: Module) -> bool:
    """Whether an instruction adds up many bfloat16 numbers in bfloat16."""
    if x.opcode != "reduce" or x.shapes[0].dtype != "bf16":
        return False
    adds = any(y.opcode == "add" for y in module.computations[x.called("to_apply")].values())
    return adds and x.inputs[0].size > _FEW * x.shapes[0].size


def _exposed(module: Module) -> int:
    """All-reduces without a kernel between their start and their end, in the order that XLA has scheduled."""
    alone = 0
    for computation in module.computations.values():
        beside: dict[str, bool] = {}
        for x in computation.values():
            if x.opcode == "all-reduce-start":
                beside[x.name] = False
            elif x.opcode == "all-reduce-done":
                alone += not beside.pop(x.operands[0])
            elif x.opcode in ("fusion", "custom-call", "while", "dot", "convolution"):
                beside = dict.fromkeys(beside, True)
            alone += x.opcode == "all-reduce"  # one that is not asynchronous
    return alone
