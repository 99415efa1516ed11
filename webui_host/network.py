"""The tag in the host's prompts: what AUTOMATIC1111 and the Forges call an extra network."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..sparsedict_core.errors import SiteError, SparseDictError, TagError, first_line
from ..sparsedict_core.prompt_tags import NAME
from . import files
from .applied import AppliedTags

APPLIED = AppliedTags()
OPTION, STOP, WITHOUT = "sparsedict_on_mistake", "stop", "make it without"
INFOTEXT = "SparseDict hashes"
MISTAKE = "sparsedict_mistake"  # on the host's processing: what is wrong with the script's argument
CHANGES = "sparsedict_changes"  # on the host's processing: options that an XYZ plot sets


def diffusion_model(sd_model: Any) -> nn.Module:
    """The denoiser of the host's loaded model. The Forges keep it in another place than AUTOMATIC1111.

    Raises SiteError where it is in neither, as in SD.Next, which loads diffusers' pipelines.
    """
    objects = getattr(sd_model, "forge_objects", None)
    model = sd_model if objects is None else objects.unet
    found = getattr(getattr(model, "model", None), "diffusion_model", None)
    if found is None:
        raise SiteError(
            f"this web UI holds its model as a {type(sd_model).__name__}, where SparseDict cannot act; use AUTOMATIC1111, Forge or Forge Neo, "
            "or attach the file to the pipeline in Python."
        )
    return found


def activate(p: Any, params_list: list[Any]) -> None:
    """Put on what the prompt asks for; nothing where it asks for nothing. A mistake ends the picture or is said beside it."""
    APPLIED.clear()
    mistake = getattr(p, MISTAKE, None)
    if not params_list and mistake is None:
        return
    from modules import shared

    model = None
    try:
        model = diffusion_model(getattr(p, "sd_model", None) or shared.sd_model)
        if mistake is not None:
            raise TagError(mistake)
        APPLIED.apply(model, [params.items for params in params_list], files.default_folder(), getattr(p, CHANGES, None))
        p.extra_generation_params[INFOTEXT] = APPLIED.description()
    except Exception as error:  # the host would print any, call again without tags, and draw
        APPLIED.clear()
        message = f"SparseDict: {error}" if isinstance(error, SparseDictError) else f"SparseDict: {type(error).__name__}: {first_line(error)}"
        if hasattr(p, "comment"):
            p.comment(message)
        if getattr(shared.opts, OPTION, STOP) != STOP:
            p.extra_generation_params[INFOTEXT] = "none, see the comment"
        elif model is None:
            raise TagError(message) from error
        else:
            # Not raised from here: the host would call again without tags, and draw.
            APPLIED.refuse(model, message)


def make_network() -> Any:
    """The object that the host registers."""
    from modules import extra_networks

    class SparseDictNetwork(extra_networks.ExtraNetwork):
        def __init__(self) -> None:
            super().__init__(NAME)

        # Some hosts pass more: the step, what to include.
        def activate(self, p: Any, params_list: list[Any], *args: Any, **kwargs: Any) -> None:
            activate(p, params_list)

        def deactivate(self, p: Any, *args: Any, **kwargs: Any) -> None:
            APPLIED.clear()

    return SparseDictNetwork()


def on_cfg_denoiser(params: Any) -> None:
    """Before each step of the sampling."""
    total = getattr(params, "total_sampling_steps", 0) or 0
    if total > 0:
        APPLIED.at(min(1.0, params.sampling_step / total))
