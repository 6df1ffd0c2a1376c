"""What hub and edge must agree on, and nothing else."""

from importlib.metadata import version

__version__ = version("fedhub")
