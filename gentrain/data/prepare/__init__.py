"""Compile a source once into `.beton` files and a manifest: verified, rebuilt when damaged, shared between nodes."""
