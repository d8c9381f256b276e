"""Models as programs: what `jax.export` reads back computes what the model computes."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax.conversion import program as program_module
from cion_jax.conversion import write_weights
from cion_jax.conversion.program import export_program
from cion_jax.convert import convert
from cion_jax.models import create_model, list_models
from tests.networks import trained
from tests.refweights import image

pytest.importorskip("flatbuffers")
SIZE = (64, 32)


def embeddings_of(model, images):
    return np.asarray(nnx.jit(lambda model, images: model(images))(model, images))


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models("*_test"))
def test_a_program_embeds_batches_of_any_size_as_its_model_does(name):
    model = trained(name)
    program = jax.export.deserialize(export_program(model, SIZE).serialize())
    assert program.platforms == ("cpu", "cuda")
    for count in (1, 3):
        images = jnp.asarray(image("program", (count, *SIZE, 3)), jnp.float32)
        expected, got = embeddings_of(model, images), np.asarray(program.call(images))
        assert got.shape == (count, model.embed_dim)
        assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    with pytest.raises(ValueError, match="shape"):
        program.call(jnp.zeros((2, 32, 32, 3)))


@pytest.mark.slow
def test_convert_writes_a_program_with_its_card(tmp_path):
    model = trained("resnet_test")
    write_weights(model, tmp_path / "w.pth", about={"model": "resnet_test", "input_size": [96, 32]})
    path = tmp_path / "resnet.stablehlo"
    assert "wrote" in convert("resnet_test", tmp_path / "w.pth", path)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    images = jnp.asarray(image("card", (2, 96, 32, 3)), jnp.float32)
    np.testing.assert_allclose(program.call(images), embeddings_of(model, images), rtol=1e-3, atol=1e-4)
    card = json.loads((tmp_path / "resnet.stablehlo.json").read_text())
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (card["input"], card["input_dtype"], card["platforms"]) == (["b", 96, 32, 3], "float32", ["cpu", "cuda"])
    assert (card["mean"], card["input_size"]) == ([0.485, 0.456, 0.406], [96, 32])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"with_head": True}, "has no projection head"), ({"loader": "transreid"}, r"that code reads \.pth files")],
)
def test_options_that_a_program_does_not_support_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        convert("resnet_test", tmp_path / "w.pth", tmp_path / "to.stablehlo", **options)


def test_without_flatbuffers_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(program_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install flatbuffers"):
        program_module.write_program(create_model("vit_test"), tmp_path / "to.stablehlo", about={})
    assert not list(tmp_path.iterdir())
