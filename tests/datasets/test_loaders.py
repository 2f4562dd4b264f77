import json
import subprocess
import sys

import numpy as np
import pytest

from forgetbench.datasets import datasets, load_partition, make_loader
from forgetbench.errors import UsageError


@pytest.mark.parametrize("name", datasets.names())
def test_every_loader_says_what_it_is(name):
    loader = datasets.get(name)
    assert loader.card.name == name
    for text in (loader.card.title, loader.card.description, loader.card.license):
        assert text
    assert loader.card.embedded or (loader.card.layout and loader.card.obtain)
    for option in loader.options():
        assert option.description.endswith("."), option
        assert option.kind
    assert json.dumps(loader().to_dict()) if name != "folder" else True


@pytest.mark.parametrize("name", [name for name in datasets.names() if not datasets.get(name).card.embedded])
@pytest.mark.parametrize("root", [None, "empty"])
def test_missing_files_are_explained(name, root, tmp_path):
    with pytest.raises(UsageError) as caught:
        load_partition(name, {}, tmp_path if root else None)
    message = str(caught.value)
    card = datasets.get(name).card
    assert card.layout in message
    assert card.obtain in message
    assert "--root" in message


def test_digits_are_split_as_asked_and_always_alike():
    partition = load_partition("digits", {"train": 300})
    assert [len(images) for _, images in partition.parts()] == [300, 150, 1347]
    assert partition.train.images.shape[1:] == (1, 8, 8)
    assert partition.train.images.max() == 255
    assert np.bincount(partition.train.labels).min() >= 27
    assert load_partition("digits", {"train": 300}).sha256 == partition.sha256
    assert load_partition("digits", {"train": 300, "seed": 1}).sha256 != partition.sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trian": 5}, "image set 'digits': There is no option 'trian'. Did you mean 'train'"),
        ({"train": 5}, "option 'train' is 5"),
        ({"train": "many"}, "option 'train' is 'many'"),
        ({"train": 1690, "validation": 90}, "leave 17 of 1797"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(UsageError, match=message):
        load_partition("digits", options)


def test_options_are_documented_with_type_and_default():
    documents = {document.name: document for document in make_loader("digits").options()}
    assert documents["train"].kind == "integer"
    assert documents["train"].default == 1000


def test_listing_the_sets_imports_no_heavy_library():
    code = (
        "import sys; from forgetbench.datasets import datasets; "
        "from forgetbench.datasets.scenarios import scenarios; "
        "[registry.get(name) for registry in (datasets, scenarios) for name in registry.names()]; "
        "print(sorted({'torch', 'torchvision', 'sklearn', 'scipy', 'PIL', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
