"""What stores share: where they are, how Redis is reached, looks that others wait for."""
