"""Videos in, person crops out: decoding, detection, tracking, cropping. Needs requirements-ingest.txt."""
