"""Folders as photographers and other trainers leave them: whose caption counts, and that nothing is left out without a word."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_pipelines import save_tiny
from trainer.picture_folders import picture, told

from sparsedict.sparsedict_core.errors import DataError
from sparsedict.trainer import Callbacks, TrainConfig, train
from sparsedict.trainer.backends import open_backend
from sparsedict.trainer.batches import concept_rows
from sparsedict.trainer.caption_limits import caption_limits
from sparsedict.trainer.data import Bucket, ConceptData, make_buckets


def captions(folder, **given) -> dict[str, list[str]]:
    return {item.name: item.captions for item in ConceptData.from_folder(folder, **given)}


# --- captions ---


def test_captions_of_other_trainers(tmp_path):
    for name in ("text.png", "caption.png", "jsonl.png", "own.png"):
        picture(tmp_path / name)
    picture(tmp_path / "deep" / "inner.png")
    (tmp_path / "text.txt").write_text("from text")
    (tmp_path / "caption.caption").write_text("from caption")
    rows = [{"file_name": "jsonl.png", "text": "from jsonl"}, {"file_name": "deep/inner.png", "text": ["one", "two"]}, {"file_name": "own.png", "text": "no"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "own.txt").write_text("its own goes first")
    assert captions(tmp_path) == {
        "caption.png": ["from caption"], "jsonl.png": ["from jsonl"], "own.png": ["its own goes first"], "text.png": ["from text"], "deep/inner.png": ["one", "two"],
    }  # fmt: skip


@pytest.mark.parametrize("header", ["file_name,text", "file_name,additional", "prompt,file_name,width"])
def test_a_csv_table(tmp_path, header):
    picture(tmp_path / "a.png")
    values = {"file_name": "a.png", "width": "8"}
    (tmp_path / "metadata.csv").write_text(header + "\n" + ",".join(values.get(column, '"a red, round thing"') for column in header.split(",")) + "\n")
    assert captions(tmp_path) == {"a.png": ["a red, round thing"]}


def test_kohya_s_metadata_and_a_json_about_other_things(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    (tmp_path / "meta_cap.json").write_text(json.dumps({"/data/a.png": {"caption": "a thing", "tags": "red, round"}, "b": {"tags": "blue"}, "c.png": "plain"}))
    (tmp_path / "settings.json").write_text(json.dumps({"learning_rate": "high"}))
    data = ConceptData.from_folder(tmp_path)
    assert [item.captions for item in data] == [["a thing, red, round"], ["blue"], ["plain"]]
    assert "other files, not used: 1 .json" in told(data)


def test_a_table_may_hold_whole_paths_and_a_text_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        picture(tmp_path / "set" / name)
    (tmp_path / "set" / "b.txt").write_text("from its text")
    rows = {str(tmp_path / "set" / name): {"caption": "from the table"} for name in ("a.png", "b.png", "gone.png")}
    (tmp_path / "set" / "meta.json").write_text(json.dumps(rows))
    data = ConceptData.from_folder(Path("set"))
    assert {item.name: item.captions for item in data} == {"a.png": ["from the table"], "b.png": ["from its text"]}
    assert "its line in meta.json is not used, as its .txt is: b.png" in told(data)
    assert f"named in meta.json but not there: {tmp_path / 'set' / 'gone.png'}" in told(data)


def test_kohya_s_folders_have_repeats_and_a_caption(tmp_path):
    picture(tmp_path / "20_zorp dog" / "a.png")
    picture(tmp_path / "20_zorp dog" / "b.png")
    picture(tmp_path / "10_dog" / "c.png")
    (tmp_path / "20_zorp dog" / "b.txt").write_text("a zorp on grass")
    data = ConceptData.from_folder(tmp_path)
    assert [(item.name, item.captions, item.repeats) for item in data] == [
        ("10_dog/c.png", ["dog"], 1), ("20_zorp dog/a.png", ["zorp dog"], 2), ("20_zorp dog/b.png", ["a zorp on grass"], 2),
    ]  # fmt: skip
    assert "repeats by folder: 1 picture 10 times, 2 pictures 20 times" in told(data)
    # A name without the word is no caption for it, and a caption for all goes before the folder's.
    assert captions(tmp_path, placeholder="zorp")["10_dog/c.png"] == ["a photo of zorp"]
    assert captions(tmp_path, caption="a {} dog", placeholder="zorp")["20_zorp dog/a.png"] == ["a zorp dog"]
    assert captions(tmp_path / "20_zorp dog")["a.png"] == ["zorp dog"]


def test_repeats_are_turns_in_the_batches(backend, tmp_path):
    picture(tmp_path / "3_zorp" / "a.png", (64, 64))
    picture(tmp_path / "1_a zorp" / "b.png", (64, 64))
    data = ConceptData.from_folder(tmp_path)
    rows = concept_rows(backend, data, Bucket((96, 96), [0, 1]))
    assert rows.texts == ["a zorp", "zorp", "zorp", "zorp"] and len(rows.latents) == 4
    assert data.content_hash() != ConceptData([*data.items[:1], ConceptData.from_folder(tmp_path / "3_zorp")[0]]).content_hash()


@pytest.mark.parametrize("text, word, expected", [
    ("one\n\ntwo\n", None, ["one", "two"]),
    ("a zorp\nthe zorp, left\n", "zorp", ["a zorp", "the zorp, left"]),
    ("a {word} on grass.\n\nThe light is soft.\n", "zorp", ["a zorp on grass. The light is soft."]),
    ("[trigger], red\n", "zorp", ["zorp, red"]),
])  # fmt: skip
def test_lines_of_a_text_are_captions_unless_one_lacks_the_word(tmp_path, text, word, expected):
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(text)
    data = ConceptData.from_folder(tmp_path, placeholder=word)
    assert data[0].captions == expected
    several = "several captions, one a line" if len(expected) > 1 else "one caption, as not every line names the word"
    assert (f"1 caption file of several lines: {several}: a.txt" in told(data)) == (text.count("\n") > 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_with_a_mark_is_read_by_it(tmp_path, encoding):
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("ein grünes Ding".encode(encoding))
    assert captions(tmp_path) == {"a.png": ["ein grünes Ding"]}


@pytest.mark.parametrize("name, content, words", [
    ("metadata.jsonl", '{"file_name": "a.png", "text": "x"}\nnot json\n', "line 2"),
    ("metadata.jsonl", '{"text": "x"}\n', "no file_name"),
    ("metadata.csv", "file_name,width,height\na.png,8,8\n", "text, caption or prompt"),
    ("metadata.csv", 'file_name,text\na.png,"' + "never closed " * 20_000, "cannot be read as a table"),
    ("metadata.jsonl", 'not json\n{"file_name": "a.png", "text": "x"}\n{}\nnor this\n', r"line 1 .* is not JSON.* \(and 1 line more\); and line 3 .* has no file_name"),
])  # fmt: skip
def test_a_damaged_table_is_named_with_its_line(tmp_path, name, content, words):
    picture(tmp_path / "a.png")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words) as error:
        ConceptData.from_folder(tmp_path)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_faults_of_every_kind_are_told_in_one_run(tmp_path):
    """However long they are: a message has a most length, and no kind may be cut away."""
    for number in range(30):
        (tmp_path / f"{'very' * 10}_long_{number}.jpg").write_bytes(b"" if number % 2 else b"text")
    picture(tmp_path / "good.png")
    picture(tmp_path / "kin" / "a.png")
    (tmp_path / "good.txt").write_text("a strange thing")
    picture(tmp_path / "lone.png")
    (tmp_path / "empty.txt").write_text(" ")
    picture(tmp_path / "empty.png")
    (tmp_path / "1_b").mkdir()
    picture(tmp_path / "1_b" / "c.png")
    (tmp_path / "1_b" / "metadata.jsonl").write_text("not json\n")
    with pytest.raises(DataError) as error:
        ConceptData.from_folder(tmp_path, refused=lambda data: f"strange: {', '.join(data.by_caption()['a strange thing'])}; {'what to write ' * 90}instead.")
    said = str(error.value)
    for part in ("line 1 of", "is not JSON", "30 of 34 pictures cannot be used", "the captions of 2 pictures", "strange: good.png", "instead."):
        assert part in said, said
    assert "c.png has no caption" not in said and "more characters) …" in said and said.count("characters)") == said.count("…") / 2


def test_a_damaged_table_of_pictures_in_other_folders_is_what_is_told(tmp_path):
    picture(tmp_path / "there" / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "there/a.png", "text": "x"\n')
    with pytest.raises(DataError, match=r"line 1 .* is not JSON"):
        ConceptData.from_folder(tmp_path)


def test_a_table_leads_to_nothing_outside_of_its_folder(tmp_path):
    picture(tmp_path / "secret.png")
    picture(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "metadata.jsonl").write_text('{"file_name": "../secret.png", "text": "x"}\n{"file_name": "a.png", "text": "y"}\n')
    data = ConceptData.from_folder(tmp_path / "set")
    assert [item.name for item in data] == ["a.png"]
    assert "named in metadata.jsonl but not there: ../secret.png" in told(data)


def test_all_pictures_without_a_caption_are_named_at_once(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    with pytest.raises(DataError, match=r"2 pictures .*a\.png.*b\.png"):
        ConceptData.from_folder(tmp_path)


# --- what cannot be read ---


def test_unreadable_pictures_are_named_at_once_or_left_out(tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / "one.jpg").write_bytes(b"")
    (tmp_path / "two.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"2 of 3 pictures .*one\.jpg is empty.*two\.png cannot be read.*--skip-unreadable"):
        ConceptData.from_folder(tmp_path, caption="a thing")
    data = ConceptData.from_folder(tmp_path, caption="a thing", skip_unreadable=True)
    assert [item.name for item in data] == ["good.png"]
    assert "1 in" in told(data) and "2 more left out" in told(data) and "one.jpg is empty" in told(data)
    (tmp_path / "good.png").unlink()
    with pytest.raises(DataError, match="2 of 2"):
        ConceptData.from_folder(tmp_path, caption="a thing", skip_unreadable=True)


def test_a_file_that_is_no_picture_is_told_before_captions_and_needs_none(tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"^\S*a\.png cannot be read as a picture \(.*whatever its name says\).*--skip-unreadable.*good\.png has no caption") as error:
        ConceptData.from_folder(tmp_path)
    assert "a.png has no caption" not in str(error.value)
    with pytest.raises(DataError, match=r"^\S*good\.png has no caption"):
        ConceptData.from_folder(tmp_path, skip_unreadable=True)
    (tmp_path / "good.txt").write_text("a thing")
    data = ConceptData.from_folder(tmp_path, skip_unreadable=True)
    assert [item.name for item in data] == ["good.png"] and "a.png cannot be read" in told(data)


# --- what is told ---


def test_everything_in_a_messy_folder_is_told(tmp_path):
    for name, size in [("a.png", (40, 40)), ("tiny.png", (10, 10)), ("smallish.png", (36, 36)), ("long.png", (400, 40))]:
        picture(tmp_path / name, size)
    picture(tmp_path / "copy.png", (40, 40), Image.open(tmp_path / "a.png").getpixel((0, 0)))
    (tmp_path / "a.txt").write_text("a thing without it")
    (tmp_path / "a.caption").write_text("another")
    (tmp_path / "lost.txt").write_text("of no picture")
    picture(tmp_path / "lost-masklabel.png", (8, 8), 255, "L")
    picture(tmp_path / "a-condlabel.png")
    (tmp_path / "film.mp4").write_bytes(b"")
    picture(tmp_path / "old" / "b.png")
    data = ConceptData.from_folder(tmp_path, placeholder="zorp")
    text = told(data, make_buckets(data, 40, 8), word="zorp")
    for line in [
        "training pictures: 5 in", "captions from .txt files: a.png", "captions “a photo of zorp”, as they have none of their own: copy.png, long.png",
        "very small, so blurred when enlarged: tiny.png (10×10, 4.0 times)", "enlarged: smallish.png (36×36, 1.1 times)",
        "cropped at the sides: long.png (400×40 loses 67%)", "without the word zorp: a.png", "the same picture: a.png, copy.png",
        "its .caption is not used, as its .txt is: a.png", "caption files without a picture: lost.txt", "masks without a picture: lost-masklabel.png",
        "1 -condlabel pictures, 1 .mp4", "sub-folders, not read: old (1 picture)",
    ]:  # fmt: skip
        assert line in text, text


class Words:
    """A tokenizer that takes each word for a token."""

    model_max_length = 5

    def __call__(self, caption, verbose):
        return SimpleNamespace(input_ids=["<", *caption.split(), ">"])

    def decode(self, ids):
        return " ".join(ids)


def test_captions_that_an_encoder_cuts_and_those_it_cannot_tell_apart():
    limits = caption_limits(SimpleNamespace(pipeline=SimpleNamespace(tokenizer=Words())), ["a b c", "a b c d", "a b c e", "x"])
    assert [(cut.caption, cut.encoder, cut.limit, cut.tokens, cut.unread) for cut in limits.cuts] == [("a b c d", "Words", 5, 6, "d"), ("a b c e", "Words", 5, 6, "e")]
    assert limits.equal == [["a b c", "a b c d", "a b c e"]]


@pytest.mark.parametrize("family, encoder", [("sd15", "CLIP"), ("sdxl", "CLIP"), ("sd3", "T5"), ("flux", "T5")])
def test_what_real_tokenizers_cut_is_named(tmp_path, family, encoder):
    save_tiny(family, tmp_path / family)
    backend = open_backend(tmp_path / family)
    long = "a photo of a cat " * 150
    data = ConceptData.from_tensors(torch.zeros(3, 3, 8, 8), [[long + "left"], [long + "right"], ["a cat"]])
    text = told(data, backend=backend)
    (cut,) = [line for line in text.splitlines() if f"cut by {encoder}, which reads" in line]
    assert "image 0 (" in cut and "image 1 (" in cut and "image 2" not in cut
    assert "the same to the text encoders, as their captions differ only in what is cut: image 0, image 1" in text


def test_the_summary_comes_before_the_pictures_are_encoded(backend, tmp_path):
    picture(tmp_path / "photos" / "a.png", (64, 64))
    happened = []

    class Listening(Callbacks):
        def on_data(self, lines):
            happened.extend(lines)

        def on_stage(self, name, detail=""):
            happened.append(name)

    # The default caption is in words that the base knows.
    config = TrainConfig(images=tmp_path / "photos", placeholder="zorp", out=tmp_path / "a.safetensors", steps=1, batch_size=2, atoms=4, rank=2, quiet_samples=2,
                         quiet_sampling_steps=1)  # fmt: skip
    train(config, backend, callbacks=Listening())
    assert happened[0].startswith("training pictures: 1 in")
    assert any("“a zorp”" in line for line in happened[: happened.index("encoding images")])


def test_the_readme_s_caption_is_in_words_that_the_embedded_base_knows(backend):
    photo, plain = (backend.encode_captions([f"a {word} of zorp"])["context"] for word in ("photo", "picture"))
    assert torch.equal(photo, plain)


def test_a_fault_that_many_pictures_share_is_said_once(tmp_path):
    for number in range(9):
        picture(tmp_path / f"{number}.png")
    with pytest.raises(DataError) as told_once:
        ConceptData.from_folder(tmp_path)
    assert str(told_once.value).count("has no caption") == 1 and "9 pictures" in str(told_once.value) and "(and 8 pictures more)" in str(told_once.value)
    (tmp_path / "0.txt").write_text("a [trigger]")
    with pytest.raises(DataError, match=r"\[trigger\].*1\.png has no caption.*\(and 7 pictures more\)"):
        ConceptData.from_folder(tmp_path)


def test_a_folder_that_cannot_be_listed_is_said_so(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(DataError, match=r"cannot be listed \(Permission denied\); check its permissions"):
        ConceptData.from_folder(tmp_path, caption="a thing")
