"""The switch of a campus card: its terminals ask, it decides, remembers on disk and answers.

The core (`switch._core`, in Rust) holds protocol, ledger and journal; this package owns the process around it: listeners,
supervision, the copy in PostgreSQL, the commands for operators.
"""
