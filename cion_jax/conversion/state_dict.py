"""PyTorch state dicts of Flax modules.

Modules carry PyTorch's attribute names, so a key is the path of a tensor: own parameters first, then own
buffers, then children, each in order of definition, which is PyTorch's order too. Lists and `nnx.Sequential`
count their items. What differs is defined once, by layer type, in `RULES`: the tensor's name in PyTorch and the
order of its axes.

Some PyTorch buffers are constants, such as Swin's `relative_position_index`. A layer computes them instead of
keeping them: its method `constants()` returns `{name: array}`. They are written, and checked when read.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.models import layers


@dataclasses.dataclass(frozen=True)
class Rule:
    """The PyTorch form of one tensor of a layer.

    Attributes:
        name: its name there.
        axes: which of our axes each of PyTorch's axes is; None leaves them as they are.
        dtype: its dtype there, where it differs.
    """

    name: str
    axes: tuple[int, ...] | None = None
    dtype: type | None = None

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(shape) if self.axes is None else tuple(shape[axis] for axis in self.axes)

    def to_torch(self, value: np.ndarray) -> np.ndarray:
        value = value if self.axes is None else value.transpose(self.axes)
        return np.array(value, dtype=self.dtype or value.dtype, order="C")

    def from_torch(self, value: np.ndarray) -> np.ndarray:
        return value if self.axes is None else value.transpose(np.argsort(self.axes))


_AFFINE = {"scale": Rule("weight")}
_CONV_HWIO_TO_OIHW = (3, 2, 0, 1)
_LINEAR_IO_TO_OI = (1, 0)

# Tensors that no rule names keep their name and layout (biases, cls_token, pos_embed, gamma).
RULES: dict[type[nnx.Module], dict[str, Rule]] = {
    layers.Conv: {"kernel": Rule("weight", axes=_CONV_HWIO_TO_OIHW)},
    layers.Linear: {"kernel": Rule("weight", axes=_LINEAR_IO_TO_OI)},
    layers.LayerNorm: _AFFINE,
    layers.InstanceNorm: _AFFINE,
    layers.BatchNorm: _AFFINE
    | {
        "mean": Rule("running_mean"),
        "var": Rule("running_var"),
        "num_batches_tracked": Rule("num_batches_tracked", dtype=np.int64),
    },
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Keys of a state dict compared with those of a model; `problems` says what is wrong with keys that both have."""

    matched: list[str]
    missing: dict[str, str]
    unexpected: dict[str, str]
    problems: dict[str, str]

    @property
    def exact(self) -> bool:
        return not (self.missing or self.unexpected or self.problems)

    def __str__(self) -> str:
        counts = f"{len(self.matched)} matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected"
        lines = [f"{counts}, {len(self.problems)} unfit"]
        for sign, keys in (("-", self.missing), ("+", self.unexpected), ("!", self.problems)):
            lines += [f"  {sign} {key} {note}" for key, note in list(keys.items())[:_SHOWN]]
            lines += [f"  {sign} ... and {len(keys) - _SHOWN} more"] * (len(keys) > _SHOWN)
        return "\n".join(lines)


_SHOWN = 12


def state_dict(model: nnx.Module) -> dict[str, np.ndarray]:
    """The model's tensors under PyTorch's names, in PyTorch's order, layouts and dtypes."""
    return {
        key: rule.to_torch(source if isinstance(source, np.ndarray) else np.asarray(source.get_value()))
        for key, source, rule in _tensors(model, "")
    }


def signature(model: nnx.Module) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """`{key: (shape, dtype)}` of `state_dict(model)`, also of an abstract model (from `nnx.eval_shape`)."""
    return {
        key: (rule.shape(source.shape), np.dtype(rule.dtype or source.dtype))
        for key, source, rule in _tensors(model, "")
    }


def compare(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> Comparison:
    """Compares a state dict with a model: keys, shapes, kinds and ranges of numbers, NaN and infinity, constants."""
    expected = signature(model)
    problems = {}
    for key, source, _ in _tensors(model, ""):
        if key in arrays and (problem := _problem(arrays[key], *expected[key], source)):
            problems[key] = problem
    return Comparison(
        matched=[key for key in expected if key in arrays and key not in problems],
        missing={key: str(shape) for key, (shape, _) in expected.items() if key not in arrays},
        unexpected={key: str(np.shape(value)) for key, value in arrays.items() if key not in expected},
        problems=problems,
    )


def load_state_dict(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Fills the model from a PyTorch state dict, in place: every key used, every tensor filled.

    Floating-point values are converted to the model's dtype.

    Raises:
        ValueError: keys missing or unexpected, shapes, kinds of numbers or constants that differ, NaN, infinity, or
            values beyond the range of the model's dtype. The message lists them; the model is left as it was.
    """
    comparison = compare(model, arrays)
    if not comparison.exact:
        raise ValueError(
            f"the state dict does not fit the model: {comparison}\n"
            "(- the model has it, + the state dict has it, ! both have it; is it the right model?)"
        )
    for key, source, rule in _tensors(model, ""):
        if isinstance(source, nnx.Variable):
            source.set_value(jnp.asarray(rule.from_torch(np.asarray(arrays[key])), source.dtype))


def _problem(
    value: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, source: nnx.Variable | np.ndarray
) -> str | None:
    """Why `value` cannot become `source`, a variable or constant that has this shape and dtype in PyTorch."""
    if np.shape(value) != shape:
        return f"has shape {np.shape(value)}, the model's is {shape}"
    kind = jnp.floating if jnp.issubdtype(dtype, jnp.floating) else jnp.integer
    if not jnp.issubdtype(value.dtype, kind):
        return f"is {value.dtype}, the model's is {dtype}"
    if kind is jnp.floating and not np.isfinite(value).all():
        return f"has {np.size(value) - np.isfinite(value).sum()} values that are NaN or infinite"
    if isinstance(source, np.ndarray):
        different = np.count_nonzero(value != source)
        return f"is a constant of the architecture, and {different} of its values differ" if different else None
    lowest, highest = _limits(source.dtype)
    if beyond := np.count_nonzero((value < lowest) | (value > highest)):
        return f"has {beyond} values beyond the range of {source.dtype}, which the model computes in"
    return None


def _limits(dtype: np.dtype) -> tuple[np.float64, np.float64]:
    """The range of a number format, in float64: compared with Python floats, float16 arrays would overflow."""
    limits = jnp.finfo(dtype) if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype)
    return np.float64(limits.min), np.float64(limits.max)


def _tensors(module: nnx.Module, prefix: str) -> Iterator[tuple[str, nnx.Variable | np.ndarray, Rule]]:
    """`(key, variable or constant, rule)` of every tensor, in PyTorch's order."""
    attributes = _attributes(module)
    rules = RULES.get(type(module), {})
    for kind in (nnx.Param, nnx.BatchStat):
        for name, value in attributes.items():
            if isinstance(value, kind):
                rule = rules.get(name, Rule(name))
                yield prefix + rule.name, value, rule
    for name, constant in getattr(module, "constants", dict)().items():
        yield prefix + name, constant, Rule(name)
    for name, value in attributes.items():
        if isinstance(value, nnx.Module):
            yield from _tensors(value, f"{prefix}{name}.")


def _attributes(module: nnx.Module) -> dict[str, object]:
    if isinstance(module, nnx.Sequential):
        module = module.layers
    if isinstance(module, nnx.List):
        return {str(index): item for index, item in enumerate(module)}
    order = getattr(module, "definition_order", None) or vars(module)
    return {name: getattr(module, name) for name in order}
