"""Features of person crops, extracted by a network and kept on disk, and the extractor that correlation uses."""
