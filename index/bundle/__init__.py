"""Published bundles: manifest, reader, validation, self-test and registry."""
