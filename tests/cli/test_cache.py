"""The command that shows and empties what trainings keep for later ones."""


def test_the_cache_is_shown_and_emptied(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEDICT_CACHE", str(tmp_path))
    (tmp_path / "quiet-1.safetensors").write_bytes(bytes(1500))
    (tmp_path / "mine.safetensors").touch()
    assert cli("cache").out == f"{tmp_path}: 1 file, 1.5 kB of at most 4.00 GB\n"
    assert cli("cache", "--clear").out == f"{tmp_path}: 1.5 kB deleted\n{tmp_path}: 0 files, 0 B of at most 4.00 GB\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]


def test_a_cache_that_is_not_there_yet_is_empty(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEDICT_CACHE", str(tmp_path / "none"))
    assert cli("cache", "--clear").code == 0 and not (tmp_path / "none").exists()
