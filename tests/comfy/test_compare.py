"""The node Compare: which pictures it shows, and what it refuses."""

import pytest
import torch
from node_calls import run

from sparsedict.sparsedict_core.errors import DataError


def picture(value, side=8, rows=1):
    return [torch.full((rows, side, side, 3), value)]


def shown(nodes, **pictures):
    import folder_paths
    from PIL import Image

    with torch.inference_mode():
        frames = nodes["SparseDictCompare"].execute(**pictures).ui["sparsedict_compare"]
    return {frame["label"]: Image.open(f"{folder_paths.get_temp_directory()}/{frame['filename']}").getpixel((0, 0))[0] for frame in frames}


def test_it_shows_what_is_connected_in_order_and_of_several_the_first(nodes):
    batch = [torch.cat([*picture(0.2), *picture(1.0)]), *picture(0.6)]
    assert shown(nodes, base=picture(0.0), all_atoms=batch, selection=picture(0.4)) == {"base": 0, "all atoms": 51, "selection": 102}
    assert list(shown(nodes, base=picture(0.0), selection=picture(0.4))) == ["base", "selection"]


def test_it_says_what_is_missing_and_what_does_not_fit(nodes):
    with pytest.raises(DataError, match="nothing to compare the base with; connect all atoms, a selection, or both"):
        run(nodes, "SparseDictCompare", base=picture(0.0))
    with pytest.raises(DataError, match=r"other sizes \(base 8×8, selection 16×16\)"):
        run(nodes, "SparseDictCompare", base=picture(0.0), selection=picture(0.0, 16))
