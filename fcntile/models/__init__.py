"""Networks, and the files they are kept in."""

from fcntile.models import atrous as atrous  # these register their nets
from fcntile.models import deconvnet as deconvnet
from fcntile.models import deep_fcn as deep_fcn
from fcntile.models import fc_densenet as fc_densenet
from fcntile.models import fcn as fcn
from fcntile.models import full_resolution as full_resolution
from fcntile.models import mirror_vgg as mirror_vgg
from fcntile.models.registry import create_model, list_models, register_model

__all__ = ["create_model", "list_models", "register_model"]
