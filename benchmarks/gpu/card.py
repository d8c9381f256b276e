"""GPUs that programs can be compiled for without having one, and what they can do at most."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from cion_jax.runtime.mesh import DATA_AXIS, make_mesh

# From the repository openxla/xla (Apache-2.0), xla/backends/gpu/target_config/specs, without the field
# collective_memory_granularity, which jaxlib 0.10 and 0.11 do not know.
_DESCRIPTIONS = Path(__file__).parent / "cards"


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU: bytes per second of its memory, and dense operations per second by number type.

    Rates of tensor cores are those that large products of the best libraries reach, not the data sheet's.
    """

    name: str
    bandwidth: float
    tensor_cores: float  # of bfloat16 and float16; TF32 has half
    cuda_cores: float = 54e12  # of float32 and float64 outside the tensor cores' formats

    def rate(self, dtype: str) -> float:
        """Operations per second of products in `dtype` ("bf16", "tf32", "f32", ...)."""
        shares = {"bf16": 1.0, "f16": 1.0, "tf32": 0.5}
        return self.tensor_cores * shares[dtype] if dtype in shares else self.cuda_cores

    def mesh(self, devices: int) -> Mesh:
        """`devices` of this card in one host, which need not exist: programs are compiled for them, not run.

        Raises:
            ValueError: JAX has no CUDA plugin, or too many devices are asked for.
        """
        description = (_DESCRIPTIONS / f"{self.name}.txtpb").read_text(encoding="utf-8")
        try:
            topology = topologies.get_topology_desc(
                platform="cuda", target_config=description, topology=f"1x1x{devices}"
            )
        except NotImplementedError as error:
            raise ValueError(
                "this JAX cannot compile for NVIDIA GPUs: pip install -r benchmarks/gpu/requirements.txt, and set "
                "JAX_PLATFORMS=cpu on a machine without a GPU"
            ) from error
        return Mesh(np.asarray(topology.devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))


CARDS = {
    "h100": Card("h100", bandwidth=3.35e12, tensor_cores=660e12),
    "h200": Card("h200", bandwidth=4.8e12, tensor_cores=790e12),
}


def own_card() -> Card | None:
    """The card of this machine's GPUs; None where there is none.

    Raises:
        ValueError: it has a GPU that is not in the table.
    """
    if jax.default_backend() != "gpu":
        return None
    kind = jax.devices()[0].device_kind
    for name, card in CARDS.items():
        if name in kind.lower():
            return card
    raise ValueError(f"nothing is known of {kind}; name a card to compile for with --card, of {', '.join(CARDS)}")


def own_mesh(devices: int) -> Mesh:
    """The first `devices` GPUs of this machine."""
    return make_mesh(jax.devices()[:devices])
