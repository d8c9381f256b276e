# XLA and CUDA settings for training on GPUs, sourced by the launchers; existing settings take precedence.

# Overlaps the gradients' all-reduce with the backward pass.
# Gradients are sent in buckets of 64 MiB: a single bucket (ResNet-50: 100 MB, ViT-Base: 340 MB) could only be sent
# once the last gradient is ready, and one bucket per tensor would pay the network latency a hundred times.
XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true --xla_gpu_all_reduce_combine_threshold_bytes=67108864 ${XLA_FLAGS:-}"
# Not set here: --xla_gpu_enable_triton_gemm=false, which jax 0.10.2 needs for ViTs in float32 where kernels are not tried
# out (--xla_gpu_autotune_level=0, or no GPU): "Couldn't find output tile sizes". In bfloat16 they compile as they are.
# Fraction of the device memory that XLA allocates at start-up. NCCL and cuDNN need the rest.
XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}
export XLA_FLAGS XLA_PYTHON_CLIENT_MEM_FRACTION
