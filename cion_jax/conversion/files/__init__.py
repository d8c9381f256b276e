"""Weight files, read and written without PyTorch and without running any code they hold."""
