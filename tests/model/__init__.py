"""The model: both production cores in one world, explored through every interleaving."""
