import importlib
import pkgutil

from modkit import kinds

FILES = [importlib.import_module(info.name) for info in pkgutil.iter_modules(kinds.__path__, "modkit.kinds.")]


def test_the_package_gives_every_name_of_its_files():
    names = {name: getattr(file, name) for file in FILES for name in file.__all__}
    assert {name: getattr(kinds, name) for name in kinds.__all__} == names
    assert len(names) == sum(len(file.__all__) for file in FILES)


def test_the_table_names_protocols_that_the_package_gives():
    assert {kind.protocol for kind in kinds.KINDS.values()} <= {"Model", *kinds.__all__}
