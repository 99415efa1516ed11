"""A choice among what earlier choices have left: only that is counted, and addresses stay."""

import torch
from webui.models import UNET_PATHS, adapter

from sparsedict.host_shared.narrowing import select_left, share_selection
from sparsedict.sparsedict_core.selection import Selection, select


def test_a_share_is_of_what_is_left():
    whole = adapter(UNET_PATHS)
    first = select_left(whole, None, share_selection(0.5))
    assert first.kept == select(whole, Selection(keep=0.5)).kept == 15
    second = select_left(whole, first.gains(), share_selection(0.2))
    assert second.kept == 3 and second.total == whole.atom_count
    assert all(bool((second.masks[key] <= first.masks[key]).all()) for key in first.masks)
    # The strongest of what is left, which are the strongest of all.
    assert all(torch.equal(second.masks[key], mask) for key, mask in select(whole, Selection(top=3)).masks.items())
    assert select_left(whole, first.gains(), share_selection(0)).kept == 0


def test_all_but_the_strongest_are_chosen_from_though_they_are_the_weakest():
    whole = adapter(UNET_PATHS)
    weak = select_left(whole, None, Selection(top=25, invert=True))
    assert weak.kept == 5
    assert select_left(whole, weak.gains(), Selection(top=2)).kept == 2
    assert weak.text == select_left(whole, weak.gains(), share_selection(1)).text
