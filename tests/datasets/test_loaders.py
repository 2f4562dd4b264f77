import json
import subprocess
import sys

import numpy as np
import pytest

from forgetbench.datasets import datasets, load_partition, make_loader
from forgetbench.errors import UsageError


@pytest.mark.parametrize("name", datasets.names())
def test_every_loader_has_a_complete_card(name):
    loader = datasets.get(name)
    assert loader.card.name == name
    for text in (loader.card.title, loader.card.description, loader.card.license):
        assert text
    assert loader.card.embedded or (loader.card.layout and loader.card.obtain)
    for option in loader.options():
        assert option.help.endswith("."), option
        assert option.kind
    assert json.dumps(loader().to_dict()) if name != "folder" else True


@pytest.mark.parametrize("name", [name for name in datasets.names() if not datasets.get(name).card.embedded])
@pytest.mark.parametrize("root", [None, "empty"])
def test_missing_files_error_says_how_to_get_them(name, root, tmp_path):
    with pytest.raises(UsageError) as caught:
        load_partition(name, {}, tmp_path if root else None)
    message = str(caught.value)
    card = datasets.get(name).card
    assert card.layout in message
    assert card.obtain in message
    assert "--root" in message


def test_digits_split_follows_options_and_seed():
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
        ({"trian": 5}, "image set 'digits': Unknown option 'trian'. Did you mean 'train'"),
        ({"train": 5}, "train must be a whole number in \\[20, 1700\\], not 5"),
        ({"train": "many"}, "train must be a whole number in .*, not 'many'"),
        ({"train": 1690, "validation": 90}, "leave 17 of 1797 images for testing"),
    ],
)
def test_wrong_option_error_explains_it(options, message):
    with pytest.raises(UsageError, match=message):
        load_partition("digits", options)


def test_options_document_type_and_default():
    documents = {document.name: document for document in make_loader("digits").options()}
    assert documents["train"].kind == "int"
    assert documents["train"].default == 1000


def test_listing_image_sets_imports_no_heavy_library():
    code = (
        "import sys; from forgetbench.datasets import datasets; "
        "from forgetbench.datasets.scenarios import scenarios; "
        "[registry.get(name) for registry in (datasets, scenarios) for name in registry.names()]; "
        "print(sorted({'torch', 'torchvision', 'sklearn', 'scipy', 'PIL', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
