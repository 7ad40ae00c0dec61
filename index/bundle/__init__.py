"""A published bundle: its manifest, opened, validated, and tested on stored queries."""
