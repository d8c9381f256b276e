"""State dicts and checkpoints for tests of weight files."""

import argparse
import collections
import functools

import numpy as np
import torch

from cion_jax.conversion import state_dict
from cion_jax.models import create_model
from tests.refweights import weight


def assert_same(got, expected):
    assert list(got) == list(expected)
    for key, value in expected.items():
        assert (got[key].dtype, got[key].shape) == (value.dtype, value.shape), key
        np.testing.assert_array_equal(got[key], value, err_msg=key)


def changed_state_dict(name):
    """A state dict unlike any initialisation, counters included; constants stay."""
    return {key: value.copy() for key, value in _changed_state_dict(name).items()}


@functools.cache
def _changed_state_dict(name):
    arrays = state_dict(create_model(name))
    for key, value in arrays.items():
        if key.endswith("num_batches_tracked"):
            arrays[key] = np.asarray(7)
        elif value.dtype != np.int64:
            arrays[key] = weight(key, value.shape, 3).astype(np.float32)
    return arrays


def as_tensors(arrays, prefix=""):
    return {prefix + key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}


def released_checkpoint(arrays):
    """A whole training checkpoint as the released code saves it."""
    network = torch.nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = np.linspace(0, 1e-3, 7)[3]  # schedules there are NumPy arrays
    teacher = as_tensors(arrays, "module.backbone.") | {"module.head.mlp.0.weight": torch.ones(3, 4)}
    return {
        "student": {"module.backbone.conv1.weight": torch.zeros(2)},
        "teacher": collections.OrderedDict(teacher),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(batch_size_per_gpu=96, global_crops_size=[256, 128], use_fp16=True),
        "Loss": {"center": torch.zeros(1, 5)},
        "fp16_scaler": {"scale": 65536.0},
    }
