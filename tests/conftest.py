"""Every test runs on eight CPU devices, so that what is sharded can be compared with what is not."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
