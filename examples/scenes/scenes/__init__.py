"""Scenes, as parts of modkit, with a kind of their own. Importing this imports no torch."""

from modkit import Part, hookimpl, kinds


@hookimpl
def modkit_kinds() -> list[kinds.Kind]:
    case, starters = "scenes.battery:CASE", "scenes.starters"
    return [kinds.Kind("layout", "scenes.parts:Layout", ("places",), "where things are", case=case, starters=starters)]


@hookimpl
def modkit_parts() -> list[Part]:
    return [
        Part("scenes/layout", "standard", "scenes.parts:Standard", "Things around the middle"),
        Part("scenes/layout", "learned", "scenes.parts:learn", "Things around places that are learned"),
        Part("model", "stage", "scenes.parts:Stage", "Paints what stands where a layout says"),
        Part("conditioner", "places", "scenes.parts:Places", "A vector of places"),
        Part("data", "blobs", "scenes.parts:Blobs", "A bright blob at a place"),
    ]
