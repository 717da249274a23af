"""Events as flat tables for registries, and the files they are written to."""
