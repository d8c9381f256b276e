"""Fine-tuning of pre-trained backbones for person re-identification (Sec. 4.1): losses, methods, training run."""
