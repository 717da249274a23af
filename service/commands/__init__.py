"""The commands of `itb` that a job scheduler runs; `service/cli.py` registers them."""
