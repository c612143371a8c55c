"""The simulation, compiled: the same sources as extension modules of their own, in build/sim/, used by nothing else."""
