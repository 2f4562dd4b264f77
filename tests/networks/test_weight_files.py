"""Files of weights as people have them: wrapped, prefixed, pruned, misnamed, or not weights at all."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from support.training import make_spec
from torch import nn
from torch.nn.utils import prune

from forgetbench.errors import UsageError
from forgetbench.networks import Network
from forgetbench.networks.pretrained import match_state, read_state, start_notice
from forgetbench.store import file_digest


def cnn(seed: int = 7, **options: Any) -> Network:
    return make_spec("cnn", 32, **{"width": 4, **options}).build(seed)


def equal(state: dict[str, torch.Tensor], network: Network) -> bool:
    expected = network.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[name], one) for name, one in expected.items())


def prefixed(prefix: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {prefix + name: one for name, one in state.items()}


WRAPPED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best_acc": 0.9},
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {}}},
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    "net": lambda state: {"net": state, "acc": 95.0, "epoch": 199},
    "nested": lambda state: {"model": {"state_dict": state, "arch": "cnn"}},
    "unknown name": lambda state: {"student": state, "args": {"lr": 0.1}},
    "module.": prefixed("module."),
    "_orig_mod.": prefixed("_orig_mod."),
    "module._orig_mod.": prefixed("module._orig_mod."),
    "_orig_mod.module.": prefixed("_orig_mod.module."),
    "compiled part": lambda state: {name.replace("body.", "body._orig_mod."): one for name, one in state.items()},
    "average": lambda state: {"n_averaged": torch.tensor(5), **prefixed("module.")(state)},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("legacy", [False, True])
def test_read_state_removes_wrappers_and_prefixes(tmp_path: Path, wrapping: str, legacy: bool) -> None:
    network = cnn()
    path = tmp_path / "weights.pt"
    torch.save(WRAPPED[wrapping](network.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    assert equal(read_state(path), network)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model", "model.safetensors", "d0-s0.npz"])
@pytest.mark.parametrize("torch_format", [False, True])
def test_read_state_reads_by_content_not_by_name(tmp_path: Path, name: str, torch_format: bool) -> None:
    network, path = cnn(), tmp_path / name
    if torch_format:
        torch.save(network.state_dict(), path)
    else:
        path.write_bytes(save(network.state_dict()))
    assert equal(read_state(path), network)


def test_read_state_applies_the_masks_of_pruning(tmp_path: Path) -> None:
    network = cnn()
    prune.l1_unstructured(network.head, "weight", amount=0.5)
    torch.save(network.state_dict(), tmp_path / "pruned.pt")
    state = read_state(tmp_path / "pruned.pt")
    prune.remove(network.head, "weight")
    assert (state["head.weight"] == 0).float().mean() == pytest.approx(0.5, abs=0.01)
    assert equal(state, network)


class Code:
    """An object whose pickle runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path("ran"), "x"))


class Part(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * 2


def zipped(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, "x")
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, forget=np.zeros((3, 2)))
    return stream.getvalue()


def script() -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Part()), stream)
    return stream.getvalue()


def stored(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 46830571\n"
WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "LFS pointer": (lambda: LFS, "a Git LFS pointer, not the file itself: run `git lfs pull`[.]$"),
    "HTML": (
        lambda: b"<!DOCTYPE html><html>login</html>",
        "a web page .* download it again, logged in where that is needed[.]$",
    ),
    "empty": (lambda: b"", "an empty file: copy it from its source again[.]$"),
    "TorchScript": (script, r"a TorchScript archive, which contains code\. Save its weights: .*torch\.jit\.load"),
    "npz": (npz, r"an archive of numpy arrays \(\.npz\)\. Save only the weights"),
    "zip": (lambda: zipped("weights.pt"), "a zip archive: unpack it[.]$"),
    "gzip": (lambda: b"\x1f\x8b" + b"x" * 40, "compressed by gzip"),
    "whole model": (lambda: stored(Part()), "contains more than tensors, .* never runs pickled code"),
    "code": (lambda: stored({"state_dict": {"x": Code()}}), "contains more than tensors, .* never runs pickled code"),
    "plain pickle": (lambda: pickle.dumps(Code()), "contains more than tensors|cannot be read as weights"),
    "half": (lambda: stored({"x": torch.zeros(99)})[:-60], "a damaged zip archive"),
    "half safetensors": (lambda: save({"x": torch.zeros(99)})[:-60], "It is damaged: copy it from its source again"),
    "number": (lambda: stored({"x": 3}), r"no state dict .*: x are no tensors"),
    "list": (lambda: stored([torch.zeros(2)]), "no state dict .*, but list"),
    "nothing": (lambda: stored({}), "contains no tensors"),
    "two models": (lambda: stored({"a": {"x": torch.zeros(1)}, "b": {"x": torch.ones(1)}}), "a, b are no tensors"),
    "epoch inside": (lambda: stored({"x": torch.zeros(1), "epoch": 3}), "epoch are no tensors"),
    "sparse": (lambda: stored({"x": torch.eye(3).to_sparse()}), "sparse, quantized or empty tensors: x"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_read_state_of_other_content_says_what_it_is(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = WRONG[kind]
    for name in ("model.safetensors", "model.pt"):
        (tmp_path / name).write_bytes(make())
        with pytest.raises(UsageError, match=f"(?s)^{tmp_path / name} .*{message}"):
            read_state(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_read_state_of_a_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_state(tmp_path)


def checkpoint(state: dict[str, torch.Tensor], path: Path) -> dict[str, str]:
    save_file({name: one.contiguous() for name, one in state.items()}, path)
    return {"checkpoint": str(path), "sha256": file_digest(path)}


SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
"""A ResNet-18 with little to compute; its features are 8."""


def resnet(size: int = 32, channels: int = 3, outputs: int = 5, **options: Any) -> tuple[Network, str]:
    spec = make_spec("timm/resnet18", size, channels, outputs, arguments=SMALL, **options)
    return spec.build(1), start_notice(spec)


@pytest.fixture(scope="module")
def small_stem() -> dict[str, torch.Tensor]:
    """ResNet-18 for 32 pixels as people write it: timm's names, a 3x3 stem, ten classes."""
    torch.manual_seed(5)
    model = timm.create_model("resnet18", num_classes=10, **SMALL)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    return model.state_dict()


def test_checkpoint_with_fitting_stem_and_head_keeps_both(tmp_path: Path, small_stem: dict[str, torch.Tensor]) -> None:
    network, notice = resnet(outputs=10, **checkpoint(small_stem, tmp_path / "small.safetensors"))
    state = network.state_dict()
    for name, tensor in small_stem.items():
        ours = name.replace("fc.", "head.") if name.startswith("fc.") else f"body.model.{name}"
        assert torch.equal(state[ours], tensor), name
    assert notice == ""


def test_checkpoint_notice_names_what_does_not_fit(tmp_path: Path, small_stem: dict[str, torch.Tensor]) -> None:
    options = checkpoint(small_stem, tmp_path / "small.safetensors")
    network, notice = resnet(**options)
    assert notice == (
        "small.safetensors: not loaded, newly initialized: head.weight (10, 8) instead of (5, 8), head.bias (10,) "
        "instead of (5,)."
    )
    assert torch.equal(network.state_dict()["body.model.conv1.weight"], small_stem["conv1.weight"])
    large = small_stem | {"conv1.weight": torch.ones(64, 3, 7, 7)}
    network, notice = resnet(outputs=10, **checkpoint(large, tmp_path / "large.safetensors"))
    assert "newly initialized: body.model.conv1.weight (64, 3, 7, 7) instead of (64, 3, 3, 3)." in notice
    fresh = make_spec("timm/resnet18", 32, 3, 10, arguments=SMALL).build(1)
    assert torch.equal(network.body.model.conv1.weight, fresh.body.model.conv1.weight)
    del large["conv1.weight"]
    with pytest.raises(UsageError, match=r"lacks 1 of the .* model\.conv1\.weight"):
        resnet(**checkpoint(large, tmp_path / "without.safetensors"))


def test_checkpoint_for_gray_images_is_converted(tmp_path: Path, small_stem: dict[str, torch.Tensor]) -> None:
    network, notice = resnet(channels=1, outputs=10, **checkpoint(small_stem, tmp_path / "w.safetensors"))
    gray = network.state_dict()["body.model.conv1.weight"]
    torch.testing.assert_close(gray, small_stem["conv1.weight"].sum(1, keepdim=True))
    assert notice == "w.safetensors: converted: body.model.conv1.weight from (64, 3, 3, 3) to (64, 1, 3, 3)."


def test_checkpoint_notice_names_position_embeddings(tmp_path: Path) -> None:
    arguments = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    published = timm.create_model("vit_tiny_patch16_224", num_classes=5, **arguments)
    options = checkpoint(published.state_dict(), tmp_path / "vit.safetensors")
    spec = make_spec("timm/vit_tiny_patch16_224", 64, arguments=arguments, **options)
    assert start_notice(spec) == "vit.safetensors: converted: body.model.pos_embed from (1, 197, 24) to (1, 17, 24)."
    same = make_spec("timm/vit_tiny_patch16_224", 224, arguments=arguments, **options)
    assert start_notice(same) == ""
    assert torch.equal(same.build(0).body.model.pos_embed, published.pos_embed)


def test_checkpoint_of_this_package_notices_another_head(tmp_path: Path) -> None:
    options = checkpoint(cnn().state_dict(), tmp_path / "w.safetensors")
    assert start_notice(make_spec("cnn", 32, width=4, **options)) == ""
    assert "head.weight (5, 16) instead of (3, 16)" in start_notice(make_spec("cnn", 32, outputs=3, width=4, **options))
    body = {name: one for name, one in cnn().state_dict().items() if name.startswith("body.")}
    options = checkpoint(body, tmp_path / "body.safetensors")
    assert "head.weight is not in the file" in start_notice(make_spec("cnn", 32, width=4, **options))
    assert start_notice(make_spec("cnn", 32, width=4)) == ""


def test_pretrained_notice_names_a_new_stem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "forgetbench.networks.timm._create", lambda *_, **__: timm.create_model("resnet18", num_classes=0, **SMALL)
    )
    spec = make_spec("timm/resnet18.a1_in1k", 32, pretrained=True)
    assert start_notice(spec) == (
        "Pretrained weights of timm/resnet18.a1_in1k: newly initialized for small images: conv1.weight."
    )
    assert start_notice(make_spec("timm/resnet18.a1_in1k", 64, pretrained=True)) == ""


def test_match_state_ignores_one_more_prefix() -> None:
    network = cnn()
    state = {f"model.{name}": one for name, one in network.state_dict().items()}
    assert equal({**network.state_dict(), **match_state(network, state, Path("x")).tensors}, network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.to(torch.int8), "other types: body.stages.0.0.weight is int8"),
        (lambda one: one * float("nan"), "not finite, in body.stages.0.0.weight: that model diverged"),
    ],
)
def test_match_state_refuses_other_numbers(change: Callable[[torch.Tensor], torch.Tensor], message: str) -> None:
    network = cnn()
    name = "body.stages.0.0.weight"
    with pytest.raises(UsageError, match=f"^w.pt .*{message}"):
        match_state(network, network.state_dict() | {name: change(network.state_dict()[name])}, Path("w.pt"))


def test_match_state_explains_parametrizations() -> None:
    network = cnn()
    nn.utils.parametrizations.weight_norm(network.body.stages[0][0])
    with pytest.raises(UsageError, match=r"parametrizations\.\S+ belongs to a parametrization: remove it"):
        match_state(cnn(), network.state_dict(), Path("w.pt"))
