"""Presets are documented, known by name, and refuse what is not of their schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.sources.presets import presets
from data_prep.sources.reader import open_source
from dreamline.config import ConfigError


def test_every_preset_is_documented():
    text = (Path(__file__).parents[3] / "docs" / "data_sources.md").read_text()
    for name, preset in presets().items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert [cell.strip() for cell in line.split("|")[2:-1]] == [
            *(", ".join(preset.kinds), preset.task, preset.licence or "", preset.terms or ""),
        ], f"docs/data_sources.md: {name} is not what presets.yaml says"


@pytest.mark.parametrize("preset", sorted(name for name, preset in presets().items() if not preset.header))
def test_a_preset_refuses_a_file_of_another_schema(make, tmp_path, preset):
    kind = presets()[preset].kinds[0]
    if kind == "webdataset":
        (tmp_path / "a.tar").write_bytes(make.tar([("k.foo.txt", b"x")]))
    else:
        make.write(tmp_path / "a.parquet", [{"foo": "x"}])
    with pytest.raises(
        ConfigError, match=r"a\.(tar|parquet).*no column .*there are: .*foo.*name the right one as"
    ) as error:
        open_source(make.config(kind=kind, path=str(tmp_path), preset=preset)).spans()
    assert "columns." in str(error.value) or "where." in str(error.value)


def test_a_preset_must_be_known_and_of_the_kind(make, tmp_path):
    with pytest.raises(ConfigError, match=r"no 'lion'; there are: .*laion"):
        open_source(make.config(kind="url_list", path=str(tmp_path), preset="lion"))
    with pytest.raises(ConfigError, match="magicbrush is for kind: parquet, not for kind: folder"):
        open_source(make.config(kind="folder", path=str(tmp_path), preset="magicbrush"))
