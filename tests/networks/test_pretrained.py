"""Networks that start from a file: the right one, the wrong ones, and pretrained weights without a connection."""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from support.training import make_spec

from forgetbench.errors import UsageError
from forgetbench.networks import Network, NetworkSpec

VIT = {"arguments": {"depth": 2, "embed_dim": 24, "num_heads": 2}}


def spec(name: str, size: int = 32, channels: int = 3, outputs: int = 5, **options: Any) -> NetworkSpec:
    return make_spec(name, size, channels, outputs, **options)


def saved(state: dict[str, Any], path: Path) -> dict[str, str]:
    """The options that name a file with this state dict."""
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return {"checkpoint": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def same(first: Network, second: Network, part: str) -> bool:
    left, right = (getattr(net, part).state_dict() for net in (first, second))
    return all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_checkpoint_of_same_network_is_loaded(tmp_path: Path, suffix: str) -> None:
    trained = spec("cnn", width=4).build(7)
    options = saved(trained.state_dict(), tmp_path / f"weights{suffix}")
    start = spec("cnn", width=4, **options).build(1)
    assert same(start, trained, "body")
    assert same(start, trained, "head")
    other = spec("cnn", width=4, outputs=3, **options).build(1)
    assert same(other, trained, "body")
    assert same(other, spec("cnn", width=4, outputs=3).build(1), "head")
    assert same(spec("cnn", width=4, **options).build(1, load_weights=False), spec("cnn", width=4).build(1), "body")


def test_timm_checkpoint_fits_other_sizes_and_channels(tmp_path: Path) -> None:
    published = timm.create_model("vit_tiny_patch16_224", num_classes=10, **VIT["arguments"])
    options = saved(published.state_dict(), tmp_path / "model.safetensors")
    name = "timm/vit_tiny_patch16_224"
    net = spec(name, 64, **VIT, **options).build(0)
    state = net.body.model.state_dict()
    assert torch.equal(state["blocks.1.mlp.fc1.weight"], published.state_dict()["blocks.1.mlp.fc1.weight"])
    assert state["pos_embed"].shape[1] == 4 * 4 + 1
    grey = spec(name, 64, channels=1, **VIT, **options).build(0).body.model.state_dict()
    colors = published.state_dict()["patch_embed.proj.weight"]
    torch.testing.assert_close(grey["patch_embed.proj.weight"], colors.sum(1, keepdim=True))


def test_checkpoint_with_large_stem_keeps_new_small_stem(tmp_path: Path) -> None:
    published = timm.create_model("resnet10t", num_classes=10)
    assert published.state_dict()["conv1.0.weight"].ndim == 4
    published = timm.create_model("resnet18", num_classes=10)
    options = saved({"state_dict": published.state_dict()}, tmp_path / "resnet.pth")
    net = spec("timm/resnet18", **options).build(0)
    state = net.body.model.state_dict()
    assert state["conv1.weight"].shape[-1] == 3
    assert torch.equal(state["layer4.1.conv2.weight"], published.state_dict()["layer4.1.conv2.weight"])


class Unsafe:
    """What a pickle must not be able to bring along."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "has SHA-256 .* it is another file"),
        (
            {"sha256": ""},
            'Add sha256 = "[0-9a-f]{64}" to the options of the network: it identifies the checkpoint .*w.pt',
        ),
        ({"checkpoint": "nowhere.pt"}, "The checkpoint nowhere.pt does not exist"),
        ({"checkpoint": ""}, "give both, or neither"),
        ({"width": 8}, "other shapes.*stages.0.0.weight"),
    ],
)
def test_wrong_checkpoint_files_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    options = saved(spec("cnn", width=4).build(0).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UsageError, match=message):
        spec("cnn", **{"width": 4, **options, **change}).build(0)


def test_torchvision_checkpoint_error_suggests_timm_network(tmp_path: Path) -> None:
    options = saved(torchvision.models.resnet18(num_classes=10).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UsageError, match=r"lacks 120 of the 120 .*use timm/resnet18 instead"):
        spec("resnet18", **options).build(0)
    spec("timm/resnet18", **options).build(0)


def test_incomplete_or_pickled_checkpoints_are_refused(tmp_path: Path) -> None:
    state = spec("cnn", width=4).build(0).state_dict()
    short = {name: value for name, value in state.items() if name != "body.stages.1.0.weight"}
    with pytest.raises(UsageError, match=r"lacks 1 of the .* stages.1.0.weight"):
        spec("cnn", width=4, **saved(short, tmp_path / "a.pt")).build(0)
    foreign = timm.create_model("resnet10t").state_dict()
    with pytest.raises(UsageError, match=r"lacks .*Use the network that the weights were trained with"):
        spec("timm/resnet18", **saved(foreign, tmp_path / "b.pt")).build(0)
    with pytest.raises(UsageError, match="never runs pickled code"):
        spec("cnn", width=4, **saved({"x": Unsafe()}, tmp_path / "c.pt")).build(0)
    with pytest.raises(UsageError, match="no state dict"):
        spec("cnn", width=4, **saved({"x": 3}, tmp_path / "d.pt")).build(0)
    (tmp_path / "e.safetensors").write_bytes(b"half a file")
    sha = hashlib.sha256(b"half a file").hexdigest()
    with pytest.raises(UsageError, match="cannot be read as weights"):
        spec("cnn", width=4, checkpoint=str(tmp_path / "e.safetensors"), sha256=sha).build(0)


def test_unreachable_hub_fails_once_and_silently(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the hub's own client; its server is a closed port."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"http://127.0.0.1:{closed.getsockname()[1]}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        start = time.monotonic()
        with pytest.raises(UsageError, match="could not be downloaded"):
            spec("timm/resnet18.a1_in1k", pretrained=True).build(0)
    assert time.monotonic() - start < 15
    assert "Retry" not in capfd.readouterr().err


def test_pretrained_needs_tag_and_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"named by their tag: .*timm/resnet18.a1_in1k"):
        spec("timm/resnet18", pretrained=True).build(0)
    with pytest.raises(UsageError, match="no pretrained weights of botnet50ts_256"):
        spec("timm/botnet50ts_256", pretrained=True).build(0)
    requests = []

    def offline(url: str, **_: Any) -> None:
        requests.append(url)
        raise ConnectionError("no route to the hub\nand more")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", offline)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    with pytest.raises(UsageError, match=r"could not be downloaded \(no route to the hub\).*checkpoint and sha256"):
        spec("timm/resnet18.a1_in1k", pretrained=True).build(0)
    assert len(requests) == 1
    spec("timm/resnet18.a1_in1k", pretrained=True).build(0, load_weights=False)
