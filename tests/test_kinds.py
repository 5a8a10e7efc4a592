import importlib
import pkgutil
from dataclasses import fields

import torch
from torch import nn

from modkit import kinds
from modkit.parts.docstrings import read_arguments

FILES = [importlib.import_module(info.name) for info in pkgutil.iter_modules(kinds.__path__, "modkit.kinds.")]


def test_the_package_gives_every_name_of_its_files_and_every_protocol_of_the_table():
    names = {name: getattr(file, name) for file in FILES for name in file.__all__}
    assert {name: getattr(kinds, name) for name in kinds.__all__} == names
    assert len(names) == sum(len(file.__all__) for file in FILES)
    assert {kind.protocol for kind in kinds.KINDS.values()} <= {"Model", *kinds.__all__}


def test_optional_members_are_read_with_the_default_of_each_that_is_missing():
    class Bottleneck:
        def __init__(self):
            self.updated = []

        def update(self, step):
            self.updated.append(step)

    part = Bottleneck()
    extras = kinds.read_extras(part, kinds.BottleneckExtras)
    extras.update(7)
    assert part.updated == [7]
    assert (extras.moments, extras.prepare, extras.posterior) == ({}, None, None)


def test_an_optional_member_may_be_a_submodule():
    class Extractor(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ParameterList([torch.ones(2)])

    (head,) = kinds.read_extras(Extractor(), kinds.FeatureExtractorExtras).heads
    assert head.tolist() == [1, 1]


def test_a_record_of_optional_members_stands_beside_its_protocol_and_says_what_each_is():
    records = {name: value for name, value in vars(kinds).items() if name.endswith("Extras")}
    assert len(records) > 5
    for name, record in records.items():
        of_any = name in ("ImpliedExtras", "PretrainedExtras", "PromiseExtras")
        assert of_any or hasattr(kinds, name.removesuffix("Extras"))
        assert set(read_arguments(record)) == {member.name for member in fields(record)}
