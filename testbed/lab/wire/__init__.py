"""Links made by a process of our own, for kernels without netem."""
