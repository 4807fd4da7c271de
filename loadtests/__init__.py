"""A campus's load as a file, and what sends it to a switch: see README.md in this folder."""
