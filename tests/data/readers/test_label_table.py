import os
import re

import pytest
import torch
from torch.utils.data import DataLoader

from robustfer.data import EXPRESSIONS, LabelTable, load
from robustfer.data.classes import EXPRESSIONS_WITH_CONTEMPT, class_order
from robustfer.landmarks import DatasetLandmarks
from tests.data.trees import write_image


def written(tmp_path, text):
    """A table and an image for each of its paths, 40 x 20, whose grey values count the rows."""
    table = tmp_path / "faces.csv"
    table.write_text(text)
    for number, line in enumerate(text.splitlines()[1:]):
        name = line.split(",")[0]
        if ".." not in name:
            write_image(tmp_path / name, grey=number, size=(40, 20))
    return table


def labels(faces):
    return [faces.classes[target] for target in faces.targets]


def test_names_and_synonyms(tmp_path):
    faces = LabelTable(written(tmp_path, "path,label,age\n1/a.png,Happy,30\nb.png,anger,40\n"))
    assert faces.classes == EXPRESSIONS
    assert faces.ids == ["1/a.png", "b.png"]
    assert labels(faces) == ["happiness", "anger"]
    assert faces.votes is None
    batch = next(iter(DataLoader(faces, batch_size=2)))
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 1]


def test_other_classes(tmp_path):
    table = written(tmp_path, "label,path\n")
    table.write_text("label,path\ndog,a.png\ncat,b.png\n")
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    assert LabelTable(table).classes == ("cat", "dog")
    assert LabelTable(table, classes=["dog", "cat", "cow"]).targets.tolist() == [0, 1]
    assert LabelTable(table, root=tmp_path, size=8)[0]["image"].shape == (3, 8, 8)


def test_numbers_mean_what_is_said(tmp_path):
    table = written(tmp_path, "path,label\na.png,1\nb.png,3\n")
    with pytest.raises(ValueError, match=r"line 2: label is the number '1', whose meaning differs"):
        LabelTable(table)
    assert labels(LabelTable(table, numbers="rafdb")) == ["surprise", "disgust"]
    assert labels(LabelTable(table, numbers="affectnet")) == ["happiness", "surprise"]
    own = LabelTable(table, numbers="classes", classes=["none", "dog", "cat", "cow"])
    assert labels(own) == ["dog", "cow"]
    moved = LabelTable(table, numbers="rafdb", classes="fer2013")
    assert moved.classes == class_order("fer2013")
    assert labels(moved) == ["surprise", "disgust"]


def test_splits(tmp_path):
    table = written(
        tmp_path, "path,label,split\na.png,sad,train\nb.png,fear,Val\nc.png,fear,test\n"
    )
    assert LabelTable(table, split="train").ids == ["a.png"]
    assert LabelTable(table, split="validation").ids == ["b.png"]
    with pytest.raises(ValueError, match="has a column split; choose the rows with split="):
        LabelTable(table)
    dogs = written(tmp_path, "path,label,split\na.png,dog,train\nb.png,cat,test\n")
    assert LabelTable(dogs, split="train").classes == ("cat", "dog")
    with pytest.raises(ValueError, match="names no image of the split validation"):
        LabelTable(dogs, split="validation")


VOTES = "path,label,votes\na.png,happy,0;0;0;8;0;0;2\nb.png,sad,0 5 0 0 5 0 0\nc.png,fear,\n"


def test_votes_beside_labels(tmp_path):
    faces = LabelTable(written(tmp_path, VOTES))
    assert labels(faces) == ["happiness", "sadness", "fear"]
    assert faces.votes.tolist() == [[0, 0, 0, 8, 0, 0, 2], [0, 5, 0, 0, 5, 0, 0], [0] * 7]


def test_labels_from_votes(tmp_path):
    table = written(tmp_path, VOTES)
    majority = LabelTable(table, labels="majority")
    assert majority.classes == EXPRESSIONS
    assert majority.ids == ["a.png"]
    assert labels(majority) == ["happiness"]
    assert majority.excluded == {"with votes too divided": 2}
    assert majority.votes.shape == (1, 7)
    shares = LabelTable(table, labels="crossentropy")
    assert shares.ids == ["a.png", "b.png"]
    assert shares.targets[1].tolist() == [0, 0.5, 0, 0, 0.5, 0, 0]
    eight = written(tmp_path, "path,votes\na.png,0;0;0;0;0;0;0;9\n")
    assert LabelTable(eight, labels="majority").classes == EXPRESSIONS_WITH_CONTEMPT
    three = written(tmp_path, "path,votes\na.png,0;9;0\n")
    assert labels(LabelTable(three, labels="majority", classes=["a", "b", "c"])) == ["b"]
    with pytest.raises(
        ValueError, match=r"faces\.csv: votes for 3 classes need names.* pass classes="
    ):
        LabelTable(three, labels="majority")
    divided = written(tmp_path, "path,votes\na.png,5;5;0;0;0;0;0\n")
    with pytest.raises(ValueError, match="too divided for 'majority' in every row"):
        LabelTable(divided, labels="majority")


def test_landmarks(tmp_path):
    text = "path,label,landmarks\na.png,sad,9.5;9.5;1;2\nb.png,sad,\n"
    faces = LabelTable(written(tmp_path, text), size=10)
    assert faces.landmarks(0)[0].tolist() == pytest.approx([2.0, 4.5])  # 40 x 20 become 10 x 10
    assert bool(faces.landmarks(1).isnan().all())
    points = ";".join(["3"] * 10)
    whole = LabelTable(written(tmp_path, f"path,label,landmarks\na.png,sad,{points}\nb.png,sad,\n"))
    found, visible = DatasetLandmarks(whole)(whole.ids)
    assert torch.equal(found[0], torch.full((5, 2), 3.0))
    assert visible.all(dim=1).tolist() == [True, False]
    with pytest.raises(ValueError, match="the table has no column landmarks"):
        LabelTable(written(tmp_path, "path,label\na.png,sad\n")).landmarks(0)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a.png,happy\n", {}, "line 1: the header must name the columns path, label.*columns="),
        ("path,label\na.png,happy,1\n", {}, "line 2: .* each of 2 columns, got 3"),
        ("path,label\na.png,\n", {}, "line 2: label is empty"),
        ("path,label\n../a.png,sad\n", {}, "line 2: .* leads out of"),
        ("path,label\na.png,sad\na.png,fear\n", {}, "line 3: a.png is named a second time, .* 2$"),
        ("path,label\na.png,sad\na.png,sad\n", {}, "line 3: .*duplicates='drop' counts it once"),
        (
            "path,label\na.png,fear\nb.png,hapiness\n",
            {"classes": EXPRESSIONS},
            r"line 3: label must be one of surprise, .* got 'hapiness'; did you mean 'happiness'\?",
        ),
        ("path,label\na.png,8\n", {"numbers": "rafdb"}, "line 2: label must .* 1 to 7, got '8'"),
        ("path,label\na.png,0\n", {"numbers": "classes"}, "needs names; pass .*classes="),
        ("path,label\na.png,0\n", {"numbers": "raf"}, "numbers must be 'rafdb', "),
        ("path,label\n", {}, "names no image$"),
        ("path,label\na.png,sad\n", {"labels": "majority"}, "line 1: .*votes missing"),
        ("path,label\na.png,sad\n", {"labels": "mean"}, "labels must be 'label', 'majority', "),
        ("path,label\na.png,sad\n", {"split": "val"}, "split must be None or one of train"),
        ("path,label\na.png,sad\n", {"split": "test"}, "line 1: .*split missing"),
        ("path,label,split\na.png,sad,tain\n", {"split": "test"}, "line 2: split must be one of"),
        ("path,label,votes\na.png,sad,1;2\n", {}, "line 2: votes must be 7 numbers, got '1;2'"),
        (
            "path,label,votes\na.png,sad,0;0;0;0;-1;0;0\n",
            {},
            "line 2: a vote must be a whole number",
        ),
        ("path,label\na.png,\xa0\n", {}, "line 2: label is empty"),
        ("path,label,Label,label\na.png,sad,fear,fear\n", {}, "line 1: .* names label twice"),
        ("path,label,age,age\na.png,sad,1,2\n", {}, "line 1: .* names age twice"),
        ("path,label\na.png,happy\nb.png,Suprise\n", {}, "line 3: .*'Suprise'.* mean 'surprise'"),
        ("path,label\na.png,0_angry\nb.png,sad\n", {}, "line 2: .*'0_angry' .* mean 'angry'"),
        ("path,label\na.png,\uff48appy\nb.png,sad\n", {}, "line 2: .* did you mean 'happy'"),
        ("path,label\n._a.png,sad\n", {}, r"line 2: '\._a\.png' is not an image"),
        ("path,label\na.png,hapy\n", {}, "line 2: label 'hapy' .* did you mean 'happy'"),
        ("path,label\na.png,sda\nb.png,joy\n", {}, "line 2: label 'sda' .* did you mean 'sad'"),
        ("path,label\na.png,dog\nb.png,Dog\n", {}, "line 3: .*'Dog' is another spelling of 'dog'"),
        ("path,label\na.png,3.0\n", {}, "line 2: label is the number '3.0', whose meaning differs"),
        ("path,label\na.png,None\nb.png,sad\n", {}, "line 2: label 'None' .* missing value"),
        ("path,label\na.png,nan\n", {"numbers": "rafdb"}, "line 2: label 'nan' .* missing value"),
        ("path,label\na.png,3.5\n", {"numbers": "rafdb"}, "line 2: .* from 1 to 7, got '3.5'"),
        ("path,label\na.png,-1\n", {"numbers": "rafdb"}, "line 2: .* from 1 to 7, got '-1'"),
        ('path,label\na.png,"3,0"\n', {"numbers": "rafdb"}, "line 2: .* from 1 to 7, got '3,0'"),
        ("path,label\na.png,٣\n", {"numbers": "rafdb"}, "line 2: .* from 1 to 7"),
        (
            f"path,label\na.png,{'9' * 5000}\n",
            {"numbers": "rafdb"},
            r"line 2: .* got '9{59}\.\.\. \(5002",
        ),
        (f"path,votes\na.png,9;0;0;0;0;0;{'9' * 30}\n", {"labels": "majority"}, "line 2: a vote"),
        (
            f"path,votes\na.png,{2**63 - 1};{2**62};0;0;0;0;0\n",
            {"labels": "majority"},
            "line 2: a vote must be a whole number from 0 to 2147483647",
        ),
        ("path,label,landmarks\na.png,sad,1e39;1\n", {}, "line 2: landmarks must be .* '1e39 1'"),
        (
            "path,label,landmarks\na.png,sad,1;2;3\n",
            {},
            "line 2: landmarks must be 1 points, x and y each, got 3 values",
        ),
        ("path,label,landmarks\na.png,sad,1;x\n", {}, "line 2: landmarks must be"),
        (
            "path,label,landmarks\na.png,sad,1;2\nb.png,sad,1;2;3;4\n",
            {},
            "line 3: landmarks must be .* points, x and y each, got",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        LabelTable(written(tmp_path, text), **options)


def test_numbers_as_data_frames_write_them(tmp_path):
    table = written(tmp_path, "path,label\na.png,3.0\nb.png,+3\nc.png,03\nd.png,3\n")
    faces = LabelTable(table, numbers="affectnet")
    assert faces.classes == EXPRESSIONS
    assert labels(faces) == ["surprise"] * 4
    votes = written(tmp_path, "path,votes\na.png,0.0;0;0;8.0;0;0;2\n")
    assert labels(LabelTable(votes, labels="majority")) == ["happiness"]


def test_classes_that_are_named_are_what_they_look_like(tmp_path):
    table = written(tmp_path, "path,label\na.png,mad\nb.png,sad\nc.png,nan\nd.png,2\n")
    faces = LabelTable(table, classes=["mad", "sad", "nan", "2"])
    assert faces.targets.tolist() == [0, 1, 2, 3]
    animals = LabelTable(written(tmp_path, "path,label\na.png,bear\nb.png,dog\n"))
    assert animals.classes == ("bear", "dog")  # one letter away from fear, beside no expression


def test_tables_of_other_systems(tmp_path):
    text = "\ufeffpath,label,,\r\n1\\a.png, Happy ,,\r\n./b.PNG,sad,,\r\n"
    for name in ("1/a.png", "b.PNG"):
        write_image(tmp_path / name)
    table = tmp_path / "t.csv"
    for ending in ("\r\n", "\n", "\r"):
        table.write_bytes(text.replace("\r\n", ending).encode())
        faces = LabelTable(table)
        assert faces.ids == ["1/a.png", "b.PNG"]
        assert labels(faces) == ["happiness", "sadness"]
    table.write_text('path,label\n"b.PNG",sad\n.//b.PNG,sad\n')
    with pytest.raises(ValueError, match=r"line 3: b\.PNG is named a second time, after line 2"):
        LabelTable(table)
    table.write_text("path,label\nb.png,sad\n")
    with pytest.raises(
        FileNotFoundError, match=r"line 2: .*b\.png does not exist; did you mean 'b\.PNG'"
    ):
        LabelTable(table)


def test_absolute_paths(tmp_path):
    for name in ("faces/1/a.png", "other/b.png"):
        write_image(tmp_path / name)
    table = tmp_path / "lists" / "t.csv"
    table.parent.mkdir()
    table.write_text(f"path,label\n{tmp_path}/faces/1/a.png,happy\n")
    assert LabelTable(table, root=tmp_path / "faces").ids == ["1/a.png"]
    assert LabelTable(table, root=tmp_path).ids == ["faces/1/a.png"]
    (tmp_path / "link").symlink_to(tmp_path / "faces")
    assert LabelTable(table, root=tmp_path / "link").ids == ["1/a.png"]
    for wrong in (None, tmp_path / "other", tmp_path / "face"):
        with pytest.raises(ValueError, match="line 2: the absolute path .* pass root=, a folder"):
            LabelTable(table, root=wrong)
    table.write_text(f"path,label\n{tmp_path}/faces/../other/b.png,happy\n")
    with pytest.raises(ValueError, match=r"line 2: .* leads out of the images' folder"):
        LabelTable(table, root=tmp_path / "faces")


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a device", "link to itself"])
def test_what_is_not_a_regular_file_is_named_before_it_is_opened(tmp_path, kind):
    table = written(tmp_path, "path,label\nb.png,sad\n1/a.png,sad\n")
    path = tmp_path / "1" / "a.png"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "link to a device" else "a.png")
    with pytest.raises(ValueError, match=r"line 3: .*1/a\.png must be a regular file"):
        LabelTable(table)


def test_landmarks_share_no_memory_with_the_table(tmp_path):
    faces = LabelTable(written(tmp_path, "path,label,landmarks\na.png,sad,1;2\n"))
    faces.landmarks(0).zero_()
    assert faces.landmarks(0).tolist() == [[1, 2]]


def test_repeated_rows_may_be_dropped(tmp_path):
    table = written(tmp_path, "path,label\na.png,sad\na.png,sad\n")
    faces = LabelTable(table, duplicates="drop")
    assert faces.ids == ["a.png"]
    assert faces.excluded == {"named again in the same words": 1}


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist"):
        LabelTable(tmp_path / "none.csv")
    table = written(tmp_path, "path,label\na.png,sad\n1/b.png,sad\n")
    (tmp_path / "1" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"faces\.csv, line 3: .*b\.png does not exist"):
        LabelTable(table)


@pytest.mark.parametrize(("separator", "apart"), [(",", ","), (";", ";"), ("\t", "\t"), ("|", "|")])
def test_columns_called_otherwise_and_other_separators(separator, apart, tmp_path):
    rows = [["pth", "emotion", "label", "points"], ["a.png", "sad", "x", "1 2 3 4"]]
    rows.append(["b.png", "Happy", "y", ""])
    table = tmp_path / "faces.csv"
    table.write_text("".join(apart.join(row) + "\n" for row in rows))
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    columns = {"path": "pth", "label": "emotion", "landmarks": "points"}
    faces = LabelTable(table, columns=columns, separator=separator)
    assert labels(faces) == ["sadness", "happiness"]
    assert faces.landmarks(0).tolist() == [[1, 2], [3, 4]]
    loaded = load(f"table:{table}", split=None, columns=columns, separator=separator)
    assert loaded.targets.tolist() == faces.targets.tolist()


def test_a_split_and_votes_called_otherwise(tmp_path):
    text = "path,part,seen\na.png,train,9;0;0;0;0;0;0\nb.png,test,0;9;0;0;0;0;0\n"
    columns = {"split": "part", "votes": "seen"}
    options = {"columns": columns, "labels": "majority", "split": "test"}
    assert labels(LabelTable(written(tmp_path, text), **options)) == ["fear"]
    with pytest.raises(ValueError, match="has a column split; choose the rows"):
        LabelTable(written(tmp_path, text), columns=columns, labels="majority")


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [
        ("votes", "17", "line 2: votes must be 7 numbers, got '17'"),
        ("votes", "2;0;1;0;0;x;0", "line 2: a vote must be a whole number"),
        ("landmarks", "yes", "line 2: landmarks must be 0 points, x and y each"),
        ("split", "fold 1", "has a column split; choose the rows with split="),
    ],
)
def test_a_column_that_means_something_else_can_be_ignored(name, cell, message, tmp_path):
    table = written(tmp_path, f"path,label,{name}\na.png,sad,{cell}\nb.png,happy,{cell}\n")
    way = f"columns={{'{name}': None}}"
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        LabelTable(table)
    assert way in str(caught.value)
    for faces in (
        LabelTable(table, columns={name: None}),
        load(f"table:{table}", split=None, columns={name: None}),
    ):
        assert labels(faces) == ["sadness", "happiness"]
        assert faces.votes is None
    if name != "split":  # a column that was named cannot be ignored
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            LabelTable(table, columns={name: name})
        assert way not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("path", {}),
        ("label", {}),
        ("split", {"split": "train"}),
        ("votes", {"labels": "majority"}),
    ],
)
def test_a_column_that_is_needed_cannot_be_ignored(name, options, tmp_path):
    table = written(tmp_path, "path,label,split,votes\na.png,sad,train,1\n")
    with pytest.raises(ValueError, match=f"columns must name the column {name}, got None"):
        LabelTable(table, columns={name: None}, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"pth": "path"}}, r"columns must be among path, .* got 'pth'; .* 'path'\?"),
        ({"columns": {"label": "emotion"}}, "line 1: .* path, emotion; emotion missing from path"),
        ({"columns": {"votes": "seen"}}, "seen missing from path, label"),
        ({"separator": ";"}, "must be separated by ';', not ','"),
        ({"separator": ""}, "separator must be one character, got ''"),
        ({"separator": "\\t"}, "separator must be one character, got .*write a tab as"),
        ({"separator": '"'}, "separator must be one character"),
        ({"separator": 3}, "separator must be one character, got 3"),
    ],
)
def test_bad_columns_and_separators(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        LabelTable(written(tmp_path, "path,label\na.png,sad\n"), **options)


def test_a_separator_that_was_not_said(tmp_path):
    (tmp_path / "t.csv").write_text("path;label\na.png;sad\n")
    with pytest.raises(ValueError, match="must be separated by ',', not ';'"):
        LabelTable(tmp_path / "t.csv")
