"""Write bundles: whole ones after a training, extended ones between two trainings."""
