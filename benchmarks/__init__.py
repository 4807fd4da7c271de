"""What `make bench` measures with, and how it shows it. The native side is `switch_benchmarks` in `src`."""
