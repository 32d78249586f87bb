"""Rendered faces: data for demos, tests and studies that anyone can repeat."""

from facedistill.data.synthetic.faces import SyntheticFaces, contact_sheet

__all__ = ["SyntheticFaces", "contact_sheet"]
