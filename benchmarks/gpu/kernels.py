"""Kernels of a compiled GPU program: each one's bytes and arithmetic, from the optimised HLO.

Bytes are those that a kernel reads and writes at least once: of a slice, what is sliced; of an update in place, what
is updated. Workspaces are left out.
"""

import dataclasses
import re
from collections.abc import Iterator
from itertools import chain

from benchmarks.gpu.hlo import Computation, Instruction, Module

_NO_KERNEL = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "add-dependency", "async-done", "async-update", "copy-done", "all-reduce-done",
}  # fmt: skip
_SLICES = ("slice", "dynamic-slice", "gather")
_READ_NOTHING = ("iota", "broadcast", "rng-bit-generator")


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product or convolution: `kind` is "dot" or "convolution", `dtype` "bf16", "f32", "tf32", ...

    `dilated` tells a convolution whose kernel is spread out, the sign of a gradient that XLA turned round.
    """

    kind: str
    dtype: str
    flops: float
    dilated: bool


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel, launched `times` times."""

    instruction: Instruction
    inside: tuple[Instruction, ...]  # what is fused into it, or itself
    times: int
    read: float
    written: float
    products: tuple[Product, ...]

    @property
    def bytes(self) -> float:
        return self.read + self.written

    @property
    def source(self) -> str:
        """The JAX operation that it comes from, as far as XLA keeps it."""
        match = re.search(r'op_name="([^"]*)"', self.instruction.attributes)
        return match[1] if match else ""

    def has(self, opcode: str) -> bool:
        return any(x.opcode == opcode for x in self.inside)


def kernels(module: Module) -> list[Kernel]:
    """All kernels of a run, those of loop bodies once with their number of turns (1 where it is not known)."""
    return list(_of_computation(module, module.entry, 1))


def _of_computation(module: Module, name: str, times: int) -> Iterator[Kernel]:
    computation = module.computations[name]
    for x in computation.values():
        if x.opcode == "while":
            turns = re.search(r'"known_trip_count":\{"n":"(\d+)"', x.attributes)
            yield from _of_computation(module, x.called("body"), times * (int(turns[1]) if turns else 1))
        elif x.opcode == "call":
            yield from _of_computation(module, x.called("to_apply"), times)
        elif x.opcode == "async-start":
            yield from _of_computation(module, x.called("calls"), times)
        elif x.opcode == "conditional":
            branches = [list(_of_computation(module, branch, times)) for branch in _branches(x)]
            yield from max(branches, key=lambda kernels: sum(kernel.bytes for kernel in kernels))
        elif x.opcode == "fusion":
            yield _fusion(module, x, times)
        elif x.opcode not in _NO_KERNEL:
            read, written = _traffic(x)
            yield Kernel(x, (x,), times, read, written, tuple(_products(x)))


def _branches(conditional: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", conditional.attributes)
    if listed:
        return re.findall(r"%([\w.\-]+)", listed[1])
    return [conditional.called("true_computation"), conditional.called("false_computation")]


def _traffic(x: Instruction) -> tuple[float, float]:
    """Bytes read and written by an instruction that is a kernel of its own."""
    if x.opcode in _SLICES:
        return x.bytes, x.bytes
    if x.opcode == "dynamic-update-slice":
        return x.inputs[1].bytes, x.inputs[1].bytes
    if x.opcode in _READ_NOTHING:
        return 0, x.bytes
    read = sum(shape.bytes for shape in x.inputs)
    if x.opcode.startswith("all-reduce"):
        return read, read
    # a library's call also returns its workspace
    return read, x.shapes[0].bytes if x.opcode == "custom-call" and _products(x) else x.bytes


def _fusion(module: Module, x: Instruction, times: int) -> Kernel:
    body = module.computations[x.called("calls")]
    inside = tuple(_nested(module, body))
    users: dict[str, list[Instruction]] = {}
    for y in body.values():
        for operand in y.operands:
            users.setdefault(operand, []).append(y)
    read = sum(_read(y, body, users) for y in body.values() if y.opcode == "parameter")
    root = next(y for y in body.values() if y.root)
    products = chain.from_iterable(map(_products, inside))
    return Kernel(x, inside, times, read, _written(root, body), tuple(products))


def _nested(module: Module, body: Computation) -> Iterator[Instruction]:
    for x in body.values():
        yield x
        if x.opcode == "fusion":
            yield from _nested(module, module.computations[x.called("calls")])


def _read(parameter: Instruction, body: Computation, users: dict[str, list[Instruction]]) -> float:
    """Bytes of a fusion's parameter that are read: only the slices, where nothing else reads it."""
    total = 0.0
    for user in _through_bitcasts(parameter.name, users):
        if user.opcode in _SLICES:
            total += user.bytes
        elif not (user.opcode == "dynamic-update-slice" and _origin(user.operands[0], body) == parameter.name):
            return parameter.bytes
    return min(total, parameter.bytes)


def _through_bitcasts(name: str, users: dict[str, list[Instruction]]) -> Iterator[Instruction]:
    for user in users.get(name, ()):
        if user.opcode == "bitcast" and user.name in users:
            yield from _through_bitcasts(user.name, users)
        else:
            yield user


def _origin(name: str, body: Computation) -> str:
    while name in body and body[name].opcode == "bitcast":
        name = body[name].operands[0]
    return name


def _written(x: Instruction, body: Computation) -> float:
    """Bytes that a fusion with this root writes."""
    x = body.get(_origin(x.name, body), x)
    if x.opcode == "dynamic-update-slice":
        return body[x.operands[1]].bytes
    if x.opcode == "tuple":
        return sum(_written(body[operand], body) for operand in x.operands)
    return x.bytes


def _products(x: Instruction) -> list[Product]:
    """The product that an instruction is, or none."""
    target = re.search(r'custom_call_target="([^"]*)"', x.attributes)
    target = target[1] if target else ""
    if x.opcode == "convolution" or "$conv" in target:
        flops = _convolution_flops(x, target)
        return [Product("convolution", _number_type(x), flops, "rhs_dilate" in x.attributes)]
    if x.opcode == "dot":
        summed = x.numbers("lhs_contracting_dims")
    elif "cublas" in target:
        summed = x.numbers("lhs_contracting_dimensions")
    elif "fmha" in target:  # of q [b, n, heads, d]: two products of [n, n] and d forward, five backward
        queries = x.inputs[0]
        products = 5 if "Backward" in target else 2
        flops = products * 2.0 * queries.size * queries.dims[1]
        return [Product("dot", _number_type(x), flops, dilated=False)]
    else:
        return []
    length = 1
    for axis in summed:
        length *= x.inputs[0].dims[axis]
    return [Product("dot", _number_type(x), 2.0 * x.shapes[0].size * length, dilated=False)]


def _convolution_flops(x: Instruction, target: str) -> float:
    """2 x positions of the forward pass's result x the kernel, whichever of the three the call computes."""
    labels = re.search(r"dim_labels=\w+_(\w+)->", x.attributes)
    if labels is None:
        raise ValueError(f"HLO convolution {x.name} has no dim_labels")
    image, kernel = x.shapes[0], x.inputs[1]
    if "ackwardInput" in target:
        image = x.inputs[0]
    elif "ackwardFilter" in target:
        image, kernel = x.inputs[1], x.shapes[0]
    return 2.0 * image.size * kernel.size / kernel.dims[labels[1].index("o")]


def _number_type(x: Instruction) -> str:
    """The type that is multiplied: float32 factors are cut to TF32 unless the highest precision is asked for."""
    exact = re.search(r"operand_precision=\{highest|operand_precision\":\[\"HIGHEST|dot_f32_f32_f32", x.attributes)
    dtype = x.inputs[0].dtype
    return "tf32" if dtype == "f32" and not exact else dtype
