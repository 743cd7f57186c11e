"""predict.py and Segmenter: images of any kind and size, and the label files written for them."""

import numpy as np
import pytest
import torch
from PIL import Image, features
from sample_data import write_network

import predict
from dataloaders import build_dataset, class_names
from modeling.pretrained.loaded_model import load_model
from predict import Segmenter
from utils.errors import UserError
from utils.inference import Predictor
from utils.palettes import voc_palette


@pytest.fixture
def images(tmp_path):
    """A folder with images of several kinds and sizes."""
    folder, random = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    pixels = random.integers(0, 256, (30, 44, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "plain.png")
    Image.fromarray(pixels[..., 0]).save(folder / "gray.jpg")
    Image.fromarray(pixels).convert("CMYK").save(folder / "cmyk.tif")
    Image.fromarray(np.dstack([pixels, pixels[..., :1]])).save(folder / "alpha.webp")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    Image.fromarray(pixels).save(folder / "exif.jpeg", exif=exif)
    Image.fromarray(pixels[:1]).save(folder / "line.png")
    (folder / "notes.txt").write_text("no image")
    return folder


SIZES = {
    "plain": (44, 30),
    "gray": (44, 30),
    "cmyk": (44, 30),
    "alpha": (44, 30),
    "exif": (30, 44),
    "line": (44, 1),
}


def command(folder_network, out, *arguments) -> list[str]:
    return ["--checkpoint", str(folder_network), "--out", str(out), "--workers", "0", *map(str, arguments)]


def test_confidence_of_an_earlier_call_is_named_and_kept(folder_network, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict.main(command(folder_network, out, images / "plain.png", "--scores")) == 0
    content = (out / "plain_scores.png").read_bytes()
    assert "note" not in capsys.readouterr().out
    assert predict.main(command(folder_network, out, images)) == 0
    assert f"note: 1 confidence images are of an earlier call: {out / 'plain_scores.png'}" in capsys.readouterr().out
    assert (out / "plain_scores.png").read_bytes() == content


def test_a_folder_of_images_is_labeled(folder_network, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict.main(command(folder_network, out, images, "--scores")) == 0
    assert "6 images labeled" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        f"{name}{ending}" for name in SIZES for ending in (".png", "_overlay.png", "_scores.png")
    }
    segmenter = Segmenter(folder_network, device="cpu")
    for name, size in SIZES.items():
        label, overlay = Image.open(out / f"{name}.png"), Image.open(out / f"{name}_overlay.png")
        confidence = Image.open(out / f"{name}_scores.png")
        assert label.size == overlay.size == confidence.size == size
        assert label.mode == "P" and confidence.mode == "L" and overlay.mode == "RGB"
        assert label.getpalette()[:9] == [channel for color in voc_palette(3) for channel in color]
        result = segmenter(next(images.glob(f"{name}.*")))
        assert np.array_equal(np.asarray(label), result.labels)
        assert np.array_equal(np.asarray(confidence), (255 * result.scores).round())
        assert np.array_equal(np.asarray(overlay), np.asarray(result.overlay()))


def test_segmenter_gives_the_predictions_that_evaluate_scores(folder_network, folder_root):
    dataset = build_dataset("folder", "val", root=str(folder_root))
    segmenter = Segmenter(folder_network, device="cpu")
    for index in range(len(dataset)):
        image, _ = dataset.read(index)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        logits = Predictor(segmenter.predictor.model, torch.device("cpu"))(tensor)[0]
        result = segmenter(dataset.image_path(index))
        assert np.array_equal(result.labels, logits.argmax(0).numpy())
        np.testing.assert_allclose(result.scores, logits.softmax(0).max(0).values.numpy(), rtol=1e-6)
        assert result.labels.dtype == np.uint8 and result.scores.dtype == np.float32
        assert result.classes == ("ground", "wall", "sky") and result.scores.min() >= 1 / 3


def test_segmenter_takes_a_path_an_image_or_an_array(folder_network, images):
    segmenter = Segmenter(str(folder_network), device="cpu")
    path = images / "plain.png"
    expected = segmenter(str(path)).labels
    assert np.array_equal(segmenter(Image.open(path)).labels, expected)
    assert np.array_equal(segmenter(np.asarray(Image.open(path))).labels, expected)
    rotated = segmenter(Image.open(images / "exif.jpeg"))
    assert rotated.labels.shape == (44, 30) and rotated.image.size == (30, 44)
    assert segmenter(rotated.image).labels.shape == (44, 30)  # not rotated a second time
    with pytest.raises(UserError, match=r"nowhere\.jpg is missing: put it there, or leave it out"):
        segmenter("nowhere.jpg")


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((4, 5, 2)), "ndarray float64 [4, 5, 2]"),
        (np.zeros((4, 5), bool), "ndarray bool [4, 5]"),
        (np.zeros((4, 5), np.uint16), "ndarray uint16 [4, 5]"),
        (np.zeros((3, 4, 5), np.uint8), "ndarray uint8 [3, 4, 5]"),
        (np.zeros((0, 0), np.uint8), "ndarray uint8 [0, 0]"),
        (torch.zeros(5, 4, 3), "Tensor torch.float32 [5, 4, 3]"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "Tensor torch.int64 [3, 4, 5]"),
        (Image.new("RGB", (0, 0)), "a PIL image of 0x0"),
        ({"image": 1}, "dict"),
        (5, "int"),
        (None, "NoneType"),
    ],
)
def test_what_is_not_an_image_is_named_with_what_to_give(image, named):
    with pytest.raises(UserError) as caught:
        predict.to_rgb_image(image)
    assert str(caught.value).startswith(f"{named} is no image: give a path, an open file, its bytes, a PIL image")


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!garbage!", b"Exif\0\0MM\0*\0\0"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
def test_exif_that_cannot_be_read_is_ignored(folder_network, folder_root, tmp_path, ending, exif):
    pixels = np.random.default_rng(0).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    path = tmp_path / f"garbage.{ending}"
    Image.fromarray(pixels).save(path, exif=exif, dpi=(72, 72))  # without dpi Pillow reads the EXIF of a JPEG for it
    stored = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(np.asarray(predict.to_rgb_image(path)), stored)
    assert np.array_equal(np.asarray(predict.to_rgb_image(Image.open(path))), stored)
    assert predict.main(command(folder_network, tmp_path / "out", path)) == 0
    (folder_root / "JPEGImages/v.0.jpg").unlink()
    path.rename(folder_root / f"JPEGImages/v.0.{ending}")
    image, _ = build_dataset("folder", "val", root=str(folder_root)).read(0)
    assert np.array_equal(np.asarray(image), stored)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_prediction_applies_exif_orientation_as_training_does(folder_root, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    path, exif = folder_root / "JPEGImages/v.0.jpg", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    image, _ = build_dataset("folder", "val", root=str(folder_root)).read(0)
    assert np.array_equal(np.asarray(predict.to_rgb_image(path)), np.asarray(image))


@pytest.mark.parametrize(("mode", "ending"), [("I;16", "png"), ("I;16", "tif"), ("I", "tif"), ("F", "tif")])
def test_images_of_more_than_8_bits_are_refused(folder_network, images, tmp_path, capsys, mode, ending):
    deep = Image.new(mode, (20, 10), 300)
    deep.save(images / f"deep.{ending}")
    text = f"has more than 8 bits a channel (mode {mode}): save it with 8"
    assert predict.main(command(folder_network, tmp_path / "out", images)) == 2
    output = capsys.readouterr()
    assert "6 images labeled" in output.out and not (tmp_path / "out/deep.png").exists()
    assert output.err.splitlines()[-1].endswith(f"deep.{ending} {text}")
    with pytest.raises(UserError) as caught:
        predict.to_rgb_image(deep)
    assert str(caught.value) == f"the image {text}"


def test_broken_images_are_reported_at_the_end_and_the_others_labeled(folder_network, images, tmp_path, capsys):
    (images / "a_broken.jpg").write_bytes(b"not an image")
    content = (images / "plain.png").read_bytes()
    (images / "m_cut.png").write_bytes(content[: len(content) // 2])
    out = tmp_path / "out"
    assert predict.main(command(folder_network, out, images)) == 2
    output = capsys.readouterr()
    assert "6 images labeled" in output.out
    assert "a_broken.jpg cannot be read" in output.err
    last = output.err.strip().splitlines()[-1]
    assert last.startswith("error: 2 of 8 images not labeled: ") and "m_cut.png" in last
    assert {path.name for path in out.iterdir()} == {
        f"{name}{end}" for name in SIZES for end in (".png", "_overlay.png")
    }


def test_images_of_one_name_get_different_label_files(folder_network, images, tmp_path):
    (images / "below").mkdir()
    for name in ("plain.png", "below/plain.png", "below/plain.bmp"):
        Image.new("RGB", (20, 20)).save(images / name)
    out = tmp_path / "out"
    pattern = str(images / "**" / "plain.*")
    assert predict.main(command(folder_network, out, pattern, images / "plain.png")) == 0
    found = {path.name for path in out.iterdir() if "overlay" not in path.name}
    assert found == {"plain.png", "plain_png.png", "plain_2.png"}


def test_output_names_of_different_images_do_not_collide(tmp_path):
    files = [tmp_path / name for name in ("x.jpg", "x_overlay.jpg", "x_scores.jpg")]
    targets = predict.name_outputs(files, tmp_path / "out")
    written = [file.name for target in targets.values() for file in predict.outputs(target)]
    assert len(set(written)) == 9 and targets[files[0]].name == "x.png"


def test_output_names_show_the_ending_of_an_image_only_where_a_name_is_taken(tmp_path):
    files = [tmp_path / name for name in ("x.jpg", "x.bmp", "X.JPG", "y.png.jpg", "v.0.jpg", "below/x.bmp", "noending")]
    targets = predict.name_outputs(files, tmp_path / "out")
    wanted = ["x.png", "x_bmp.png", "X_JPG.png", "y.png", "v.0.png", "x_2.png", "noending.png"]
    assert [target.name for target in targets.values()] == wanted


def test_every_format_that_pillow_decodes_is_labeled_and_the_rest_is_counted(folder_network, tmp_path, capsys):
    folder, out = tmp_path / "many", tmp_path / "out"
    (folder / "below").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    frames = [Image.fromarray(pixels), Image.new("RGB", (30, 20), "red")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    endings = ("bmp", "ppm", "tga", "jp2", "TIFF") + (("avif",) if features.check("avif") else ())
    for ending in endings:
        frames[0].save(folder / f"{ending}.{ending}")
    for name in ("notes.txt", "more.txt", "sheet.pdf", "scan.mpg", ".hidden.jpg", "README"):
        (folder / name).write_text("no image")
    frames[1].save(folder / "below/deep.png")
    assert predict.main(command(folder_network, out, folder)) == 0
    printed = capsys.readouterr().out
    assert f"{len(endings) + 1} images labeled" in printed
    left = next(line for line in printed.splitlines() if line.startswith(f"left out of {folder}: "))
    assert set(left.partition(": ")[2].split(", ")) == {
        "2 .txt", "1 .pdf", "1 .mpg (--video)", "1 hidden file", "1 extensionless file", "1 folder (--recursive)",
    }  # fmt: skip
    labels = np.asarray(Image.open(out / "moving.png"))
    first = Image.open(folder / "moving.gif").convert("RGB")
    assert np.array_equal(labels, Segmenter(folder_network, "cpu")(first).labels)
    assert predict.main(command(folder_network, out, folder, "--recursive")) == 0
    assert (out / "below/deep.png").is_file() and "folder (" not in capsys.readouterr().out


def test_a_missing_image_is_named_at_the_end_and_the_others_labeled(folder_network, images, tmp_path, capsys):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    (empty / "clip.txt").touch()
    missing = [tmp_path / "nowhere.jpg", empty, images / "plain.png"]
    assert predict.main(command(folder_network, out, *missing)) == 2
    output = capsys.readouterr()
    assert "1 images labeled" in output.out and (out / "plain.png").is_file()
    assert "nowhere.jpg is not an image" in output.err
    last = output.err.splitlines()[-1]
    assert last == f"error: 2 of 3 images not labeled: {empty} is a folder without images, with 1 .txt: give another"
    assert predict.main(command(folder_network, out, *missing[:2])) == 2
    assert "nowhere.jpg is not an image" in capsys.readouterr().err.splitlines()[-1]


def test_a_url_is_not_downloaded(folder_network, tmp_path, capsys):
    assert predict.main(command(folder_network, tmp_path / "out", "https://example.org/a.jpg")) == 2
    wanted = "error: https://example.org/a.jpg is a URL: download it first, and give the file"
    assert capsys.readouterr().err.splitlines()[-1] == wanted


def test_batches_of_the_command_give_the_same_files(folder_network, images, tmp_path):
    for name, flags in {"one": [], "four": ["--batch-size", "4"]}.items():
        assert predict.main(command(folder_network, tmp_path / name, images, "--scores", *flags)) == 0
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "four").iterdir())
    for name in (f"{name}.png" for name in SIZES):
        one, four = (np.asarray(Image.open(tmp_path / folder / name)) for folder in ("one", "four"))
        assert np.array_equal(one, four)


@pytest.mark.parametrize("name", ["plain.png", "x_overlay.png"])
def test_the_images_themselves_are_not_overwritten(folder_network, tmp_path, capsys, name):
    Image.new("RGB", (20, 20)).save(tmp_path / name)
    Image.new("RGB", (20, 20)).save(tmp_path / "x.jpg")
    before = (tmp_path / name).read_bytes()
    assert predict.main(command(folder_network, tmp_path, tmp_path / name, tmp_path / "x.jpg")) == 2
    assert "would be overwritten: give another --out" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before and not (tmp_path / "x.png").exists()


def test_scales_flips_and_windows_change_the_scores(folder_network, images, tmp_path):
    scores = {}
    for name, flags in {
        "plain": [], "many": ["--scales", "0.5", "1.5", "--flip"],
        "slide": ["--protocol", "slide", "--crop-size", "17"],
        "large": ["--protocol", "slide", "--crop-size", "99"], "fine": ["--out-stride", "8"],
    }.items():  # fmt: skip
        assert predict.main(command(folder_network, tmp_path / name, images / "plain.png", "--scores", *flags)) == 0
        scores[name] = np.asarray(Image.open(tmp_path / name / "plain_scores.png"))
    assert np.array_equal(scores["plain"], scores["large"])
    assert all(not np.array_equal(scores["plain"], scores[name]) for name in ("many", "slide", "fine"))


def test_class_names_are_those_of_the_dataset_where_weights_have_none(folder_root, images, tmp_path):
    network = write_network(tmp_path / "n.pth", ("a", "b", "c"))
    state = torch.load(network)
    torch.save(state["state_dict"], tmp_path / "bare.pth")
    shape = ["--backbone", "mobilenet", "--head", "lite", "--width", "0.25"]
    names = ["--dataset", "folder", "--data-root", str(folder_root)]
    bare = command(tmp_path / "bare.pth", tmp_path / "out", images / "plain.png")
    assert predict.main(bare) == 2
    assert predict.main([*bare, *shape, *names]) == 0
    network = {"backbone": "mobilenet", "head": "lite", "width": 0.25}
    assert Segmenter(tmp_path / "bare.pth", network=network).classes == ("class 0", "class 1", "class 2")
    classes, palette = class_names("folder", str(folder_root))
    loaded = load_model(tmp_path / "bare.pth", network=network, names=(classes, palette))
    assert loaded.classes == Segmenter(loaded, "cpu").classes == ("ground", "wall", "sky")


def test_the_overlay_shows_classes_lines_and_legend(folder_network, images):
    """The color of class 1 is mixed in, class 0 stays, a lighter line separates them, the legend is in a corner."""
    result = Segmenter(folder_network, device="cpu")(np.full((200, 300, 3), 90, np.uint8))
    labels = np.zeros((200, 300), np.uint8)
    labels[:50] = 1
    names = ("background", "cat", "dog")
    segmentation = predict.Segmentation(result.image, labels, result.scores, names, result.palette)
    pixels = np.asarray(segmentation.overlay(0.5))
    assert (pixels[10, 10] == np.round(0.5 * 90 + 0.5 * np.array(voc_palette(2)[1]))).all()
    assert (pixels[50] == np.round((90 + 255) / 2)).all()
    assert (pixels[[49, 51], 10] != pixels[50, 10]).any(1).all()
    assert (pixels[51:170] == 90).all()
    assert (pixels[-1, 0] == 45).all() and (pixels[-1, 100:] == 90).all()  # the legend is no wider than its text


def test_one_number_is_both_sides_of_a_window(folder_network, images):
    path = images / "plain.png"
    one = Segmenter(folder_network, "cpu", window=17, stride=9)(path)
    two = Segmenter(folder_network, "cpu", window=[17, 17], stride=(9, 9))(path)
    assert np.array_equal(one.scores, two.scores)
    assert not np.array_equal(one.scores, Segmenter(folder_network, "cpu", window=17, stride=17)(path).scores)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"window": 17, "stride": 18}, "`stride` 18 18 leaves gaps between windows of 17x17: lower it"),
        ({"window": (17, 33), "stride": (17, 34)}, "`stride` 17 34 leaves gaps between windows of 17x33: lower it"),
        ({"window": 0}, "`window` 0: give a whole number above 0, or two"),
        ({"window": (9, 9, 9)}, "`window` (9, 9, 9): give"),
        ({"window": 17.0}, "`window` 17.0: give"),
        ({"stride": 9}, "give `window` too"),
        ({"network": {"width": 0.5}}, "`width` 0.5 contradicts"),
        ({"out_stride": 4}, "mobilenet has no output stride 4"),
        ({"device": "xyz"}, "device 'xyz' is unknown: give one of auto, cpu, cuda, mps"),
        ({"checkpoint": None}, "which network? give either `checkpoint` or `weights_from`"),
        ({"weights_from": "xception65_coco_voc_trainaug"}, "which network? give either `checkpoint` or `weights_from`"),
    ],
)
def test_arguments_that_a_segmenter_cannot_take_raise_one_line(folder_network, arguments, text):
    with pytest.raises(UserError) as caught:
        Segmenter(**{"checkpoint": folder_network, "device": "cpu"} | arguments)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_entries_are_counted_for_weights_of_other_origin(tmp_path, images, capsys):
    """The config of a checkpoint of train.py has `epochs`, and it prints nothing."""
    own = write_network(tmp_path / "own.pth", ("a", "b", "c"), epochs=1)
    foreign = write_network(tmp_path / "foreign.pth", ("a", "b", "c"))
    assert predict.main(command(own, tmp_path / "out", images / "plain.png")) == 0
    assert "loaded" not in capsys.readouterr().out
    assert predict.main(command(foreign, tmp_path / "out", images / "plain.png")) == 0
    count = len(torch.load(foreign)["state_dict"])
    output = capsys.readouterr()
    assert f"weights {foreign}: own weights: {count} loaded, 0 missing, 0 unexpected, 0 mismatched\n" in output.out
    assert "never trained" not in output.err


def test_partial_weights_need_their_flag(tmp_path, images, capsys):
    network = write_network(tmp_path / "n.pth", ("a", "b", "c"), epochs=1)
    state = torch.load(network)
    del state["state_dict"]["decoder.classifier.bias"]
    torch.save(state, network)
    partial = command(network, tmp_path / "out", images / "plain.png")
    assert predict.main(partial) == 2
    assert "or --partial-weights to take what fits" in capsys.readouterr().err.splitlines()[-1]
    assert predict.main([*partial, "--partial-weights"]) == 0
    assert "loaded, 1 missing, 0 unexpected" in capsys.readouterr().out


def test_a_head_without_trained_weights_gives_a_note(tmp_path, images, capsys):
    network = write_network(tmp_path / "n.pth", ("a", "b", "c"))
    untrained = ["decoder.classifier.weight", "decoder.classifier.bias"]
    torch.save(torch.load(network) | {"untrained": untrained}, network)
    assert predict.main(command(network, tmp_path / "out", images / "plain.png")) == 0
    wanted = f"note: {network}: its head was never trained (2 entries): predictions are random"
    assert wanted in capsys.readouterr().err.splitlines()
