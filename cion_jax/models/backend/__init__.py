"""The parts of a model whose best form depends on the platform: convolutions and hints to the compiler."""
