"""The sticker world: drawings of open emoji sets on grounds, with exact masks. Made for the next embedded base."""
