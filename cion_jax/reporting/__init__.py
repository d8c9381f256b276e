"""HTML report of a run as a single file: sections of text, tables and figures, each made from the stages' outputs."""
