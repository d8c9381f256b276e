"""Reads the text of an optimised HLO module: computations, and the instructions in them."""

import dataclasses
import functools
import math
import re

_BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}  # of types whose name does not end in their size
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array: its number type and dimensions."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        return self.size * _bits(self.dtype) / 8


@functools.cache
def _bits(dtype: str) -> int:
    """Bits of an element: of "f32" 32, of "s4" 4, of "f8e4m3fn" 8."""
    if dtype in _BITS:
        return _BITS[dtype]
    match = re.match(r"[a-z]+(\d+)", dtype)
    if match is None:
        raise ValueError(f"the HLO type {dtype!r} has no size; add it to benchmarks/gpu/hlo.py")
    return int(match[1])


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction: its results, the names and shapes of its operands, and all text after them."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    inputs: tuple[Shape, ...]
    attributes: str
    root: bool

    @property
    def bytes(self) -> float:
        return sum(shape.bytes for shape in self.shapes)

    def called(self, attribute: str) -> str:
        """The computation that an attribute such as `calls` or `to_apply` names."""
        match = re.search(attribute + r"=%?([\w.\-]+)", self.attributes)
        if match is None:
            raise ValueError(f"HLO instruction {self.name} ({self.opcode}) has no {attribute}")
        return match[1]

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """The list of numbers of an attribute such as `lhs_contracting_dims={1,2}`; empty without it."""
        match = re.search(attribute + r'"?[=:][\[{]([\d",]*)[\]}]', self.attributes)
        return tuple(int(x.strip('"')) for x in match[1].split(",") if x) if match else ()


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Module:
    """Computations by name, each with its instructions by name, in the order that they run in."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """The module whose text `compiled.as_text()` is."""
    computations, entry, current = {}, "", {}
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            current = computations[start[2]] = {}
            entry = start[2] if start[1] else entry
        elif computations and (match := _INSTRUCTION.match(line)):
            current[match[2]] = _instruction(match[2], match[3], current, root=bool(match[1]))
    if not entry:
        raise ValueError("not the text of an HLO module: it has no ENTRY computation")
    return Module(computations, entry)


def _instruction(name: str, text: str, before: Computation, *, root: bool) -> Instruction:
    """From `type opcode(operands), attributes`, and the instructions before it, which define the operands."""
    end = _closing(text, 0) + 1 if text[0] == "(" else text.index(" ")
    kind, rest = text[:end], text[end:].lstrip()
    opens = rest.index("(")
    closes = _closing(rest, opens)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[opens:closes]))
    return Instruction(
        name=name,
        opcode=rest[:opens],
        shapes=tuple(_shapes(kind)),
        operands=operands,
        inputs=tuple(shape for operand in operands if operand in before for shape in before[operand].shapes),
        attributes=rest[closes + 1 :],
        root=root,
    )


def _shapes(text: str) -> list[Shape]:
    return [Shape(dtype, tuple(int(x) for x in dims.split(",") if x)) for dtype, dims in _SHAPE.findall(text)]


def _closing(text: str, opens: int) -> int:
    """The place of the parenthesis that closes the one at `opens`."""
    depth = 0
    for place in range(opens, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise ValueError(f"unbalanced parentheses in the HLO text {text[:80]!r}")
