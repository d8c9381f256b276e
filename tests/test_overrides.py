"""Mistyped settings of a config end in one message that names the nearest settings."""

import pytest

from tests.commands import run_command


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.bacth_size=3", "did you mean --config.evaluate.batch_size or --config.pretrain.batch_size"),
        ("--config.pretrain.bacth_size=3", "did you mean --config.pretrain.batch_size"),
        ("--config.pretrain.batch_size.x=3", "the config has no such setting"),
        ("--config.lr=3", "the config has no such setting\n"),  # "blur" is not meant
    ],
)
def test_the_nearest_setting_is_named(override, message):
    result = run_command("cion_jax.pretrain", "--config=configs/resnet50_ibn.py", "--workdir=unused", override)
    assert result.returncode == 2
    assert message in result.stderr and override.partition("=")[0] in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_config_is_named():
    result = run_command("cion_jax.pretrain", "--config", "configs/nope.py", "--workdir=unused", "--config.x=3")
    assert result.returncode == 2 and "configs/nope.py" in result.stderr and "Traceback" not in result.stderr
