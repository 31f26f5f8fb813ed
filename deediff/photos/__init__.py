"""Folders of photos as people have them: found, checked in one pass, decoded as a viewer shows them."""
