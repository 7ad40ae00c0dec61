"""Where negatives come from: samplers behind one interface, and their configuration."""
