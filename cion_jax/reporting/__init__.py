"""The report of a run as one HTML file: sections of text, tables and pictures, each from files that stages wrote."""
