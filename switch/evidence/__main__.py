"""`python3 -m evidence`."""

import argparse
import sys

from . import add_arguments, run

parser = argparse.ArgumentParser(prog="evidence", description="Check an evidence report of the campus card switch.")
add_arguments(parser)
sys.exit(run(parser.parse_args()))
