"""Where negatives come from: one small file per sampler, all behind one interface."""
