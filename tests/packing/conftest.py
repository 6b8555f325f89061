"""A home without credentials for every test here, and a bundle built once."""

from built_bundle import built, no_credentials, runs

__all__ = ["built", "no_credentials", "runs"]
