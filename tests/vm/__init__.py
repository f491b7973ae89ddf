"""Real kernels, in virtual machines."""
