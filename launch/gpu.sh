# Settings of XLA and CUDA for training on GPUs, sourced by the launchers; what is set already stays.

# The gradients' all-reduce runs while the backward pass still computes, instead of after it.
# Gradients are then sent in pieces of 64 MiB: one piece for all of them (ResNet-50: 100 MB, ViT-Base: 340 MB) could
# only start when the last gradient is there, and pieces of a tensor each pay the network's latency a hundred times.
XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true --xla_gpu_all_reduce_combine_threshold_bytes=67108864 ${XLA_FLAGS:-}"
# Of the device's memory, what XLA takes for itself at the start. NCCL and cuDNN need the rest.
XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}
export XLA_FLAGS XLA_PYTHON_CLIENT_MEM_FRACTION
