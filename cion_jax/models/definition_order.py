"""The order in which a module's attributes were defined, which is the order of keys in a PyTorch state dict."""

from flax import nnx


def record_definition_order(model: nnx.Module) -> None:
    """Records on every submodule the order in which its attributes were defined, as `definition_order`.

    Flax sorts attributes by name when it splits and merges modules. The recorded order survives `nnx.split`,
    `nnx.merge` and `nnx.eval_shape`. Call this once on a new model, and again after adding parts to it.
    """
    for _, module in nnx.iter_modules(model):
        if not isinstance(module, nnx.List) and not hasattr(module, "definition_order"):
            order = tuple(key for key in vars(module) if not key.startswith("_"))
            module.definition_order = order  # pyright: ignore[reportAttributeAccessIssue]
