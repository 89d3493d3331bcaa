"""Networks, and the files they are kept in."""

from fcntile.models import fcn as fcn  # registers its nets
from fcntile.models.registry import create_model, list_models, register_model

__all__ = ["create_model", "list_models", "register_model"]
