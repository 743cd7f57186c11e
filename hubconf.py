"""Entry points for torch.hub: a trained network, or an untrained one, from any folder.

torch.hub.load("/path/to/clone", "segmenter", checkpoint="model_best.pth.tar", source="local")("photo.jpg").labels

The packages here have plain names (utils, modeling), which a caller may use too, and torch.hub takes this folder off
sys.path again. Therefore they are imported below a name of this folder's own, and their absolute imports are resolved
there: the caller's modules, and those of another clone, stay as they are.
"""

import builtins
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import pathlib
import sys
import types

dependencies = ["torch", "numpy", "PIL", "tqdm", "filelock", "safetensors"]

_ROOT = pathlib.Path(__file__).resolve().parent
_NAME = f"deeplabv3plus_{hashlib.sha256(str(_ROOT).encode()).hexdigest()[:8]}"
_OWN = {path.parent.name for path in _ROOT.glob("*/__init__.py")} | {path.stem for path in _ROOT.glob("*.py")}


def segmenter(checkpoint=None, device="auto", **options):
    """A `modeling.segmenter.Segmenter`, which labels images.

    `checkpoint`: a file of train.py, a folder of modeling.publish, hf://owner/name, or what else docs/weights.md names;
    or give `weights_from`, the name of a released network. `device`: auto, cpu, cuda or mps. `options`: the other
    parameters of Segmenter, by its names.
    """
    return _import("modeling.segmenter").Segmenter(checkpoint, device, **options)


def deeplabv3plus(backbone=None, num_classes=None, weights=None, **options):
    """A `modeling.DeepLab`: normalized image [B, 3, H, W] -> logits [B, K, H, W].

    `weights`: None for none; imagenet or another name of --backbone-weights, for the backbone alone; the name of a
    released network; or a checkpoint as `segmenter` takes it. The last two describe their network and are in evaluation
    mode. `backbone` (default: resnet; timm/NAME: a network of timm) and `num_classes` (default: 21) must not contradict
    them. `options`: the other parameters of `modeling.Architecture`, such as `output_stride` and `head`.
    """
    zoo = _import("modeling.pretrained.zoo")
    if weights in (None, "none", "imagenet", *zoo.BACKBONE_WEIGHTS):
        build = _import("modeling").build_model
        options.setdefault("output_stride", None)  # that of the backbone
        return build(backbone or "resnet", num_classes or 21, backbone_weights=weights or "none", **options)
    given = {"backbone": backbone, "num_classes": num_classes} | options
    stride = given.pop("output_stride", None)
    network = {key: value for key, value in given.items() if value is not None}
    source = {"weights_from" if weights in zoo.SEGMENTATION else "checkpoint": weights}
    return _import("modeling.pretrained.loaded_model").load_model(**source, network=network, out_stride=stride).model


def architectures():
    """What `deeplabv3plus` builds: backbone -> output strides, heads, options, and whether it has ImageNet weights."""
    modeling = _import("modeling")
    return {
        name: {
            "output_strides": spec.output_strides,
            "default_output_stride": spec.default_output_stride,
            "heads": modeling.HEADS,
            "options": spec.options,
            "imagenet": spec.imagenet is not None,
        }
        for name, spec in modeling.BACKBONES.items()
    }


def _import(name):
    """The module `name` of this folder."""
    if _NAME not in sys.modules:
        package = types.ModuleType(_NAME, __doc__)
        package.__path__ = [str(_ROOT)]
        sys.modules[_NAME] = package
        sys.meta_path.insert(0, _Finder())
    return importlib.import_module(f"{_NAME}.{name}")


def _import_statement(name, globals=None, locals=None, fromlist=(), level=0):
    """What an import statement calls in the modules of this folder: `utils.errors` is found below `_NAME`."""
    if level or name.partition(".")[0] not in _OWN:
        return builtins.__import__(name, globals, locals, fromlist, level)
    module = builtins.__import__(f"{_NAME}.{name}", globals, locals, fromlist, level)
    # `import utils.errors` binds `utils`; with a fromlist the module itself is returned
    return module if fromlist else _import(name.partition(".")[0])


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules below `_NAME`."""

    def find_spec(self, fullname, path, target=None):
        if not fullname.startswith(f"{_NAME}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Executes a module whose import statements call `_import_statement`."""

    def exec_module(self, module):
        vars(module)["__builtins__"] = vars(builtins) | {"__import__": _import_statement}
        super().exec_module(module)
