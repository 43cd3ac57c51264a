"""Other packages' interfaces on this engine. docs/compat.md of the sources has the guide."""
