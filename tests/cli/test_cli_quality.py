import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from synthetic import make_attribution, make_store

from fbk_xattn.cli.main import main


@pytest.fixture
def store(rng, tmp_path):
    texts = {"hypothesis": "red green blue cat", "tgt_text": "Red, green, blue, dog."}
    asr = make_attribution(rng, id="asr", src_lang="en", tgt_lang="en", **texts)
    st = make_attribution(rng, id="st", src_lang="en", tgt_lang="de", **texts)
    return make_store(tmp_path / "store", [asr, st])


def test_prints_wer_of_asr_and_bleu_of_st_with_its_signature(store, capsys):
    assert main(["quality", str(store.path), "--format", "markdown"]) == 0
    captured = capsys.readouterr()
    assert "| store | ASR en | 1 | 25.00 | - |" in captured.out
    assert re.search(r"\| ST en-de \| 1 \| - \| \d+\.\d\d \|", captured.out)
    assert "`nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" in captured.out
    assert "COMET" not in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "csv"])
def test_every_format_has_both_languages(store, capsys, form):
    assert main(["quality", str(store.path), "--format", form]) == 0
    out = capsys.readouterr().out
    assert "WER" in out or "wer" in out
    assert ("en-de" in out) or ("en,de" in out)


def test_output_has_the_numbers_in_full_precision(store, tmp_path):
    file = tmp_path / "quality.json"
    assert main(["quality", str(store.path), "--output", str(file)]) == 0
    asr, st = json.loads(file.read_text())[::-1]
    assert (asr["wer"], asr["bleu"], st["wer"]) == (25.0, None, None)
    assert st["bleu_signature"].startswith("nrefs:1")


def test_comet_has_a_column(store, capsys, monkeypatch):
    model = SimpleNamespace(predict=lambda *_, **__: SimpleNamespace(system_score=0.8125))
    module = SimpleNamespace(download_model=str, load_from_checkpoint=lambda _: model)
    monkeypatch.setitem(sys.modules, "comet", module)
    assert main(["quality", str(store.path), "--comet", "name"]) == 0
    captured = capsys.readouterr()
    assert "COMET: 'name'." in captured.out
    assert "0.8125" in captured.out


def test_without_the_package_one_line_says_how_to_get_it(store, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "comet", None)
    assert main(["quality", str(store.path), "--comet", "name"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert 'pip install ".[comet]"' in captured.err


def test_a_manifest_without_the_ids_lists_them(store, capsys, tmp_path):
    manifest = tmp_path / "test.tsv"
    manifest.write_text(
        "id\taudio\tn_frames\tsrc_lang\tsrc_text\ttgt_lang\ttgt_text\nst\tx\t9\ten\ta\tde\tb\n"
    )
    assert main(["quality", str(store.path), "--manifest", str(manifest)]) == 2
    assert "no reference for 1 of 2 utterances (asr)" in capsys.readouterr().err


def test_rows_of_a_manifest_that_the_store_lacks_are_noted(store, capsys, tmp_path):
    manifest = tmp_path / "test.tsv"
    rows = [f"{name}\tx\t9\ten\ta\tde\tred green\n" for name in ("st", "more", "asr")]
    manifest.write_text("id\taudio\tn_frames\tsrc_lang\tsrc_text\ttgt_lang\ttgt_text\n")
    with manifest.open("a") as file:
        file.writelines(rows)
    assert main(["quality", str(store.path), "--manifest", str(manifest)]) == 0
    captured = capsys.readouterr()
    assert captured.err == "fbk-xattn: note: store: 1 of 3 rows are not there: more\n"


def test_scores_need_neither_torch_nor_fairseq(store):
    heavy = "{'torch', 'fairseq', 'matplotlib'} & {name.split('.')[0] for name in sys.modules}"
    lines = [
        "import sys",
        "from fbk_xattn.cli.main import main",
        f"print(main(['quality', {str(store.path)!r}]), main(['size', {str(store.path)!r}]))",
        f"print('heavy:', {heavy})",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert "0 0\nheavy: set()\n" in done.stdout


def test_references_without_a_word_are_named_and_alone_leave_no_wer(rng, tmp_path, capsys):
    texts = {"src_lang": "en", "tgt_lang": "en", "hypothesis": "a b"}
    laugh = make_attribution(rng, id="laugh", tgt_text="(laughs)", **texts)
    said = make_attribution(rng, id="said", tgt_text="a b c d", **texts)
    alone = make_store(tmp_path / "alone", [laugh])
    both = make_store(tmp_path / "both", [laugh, said])
    file = tmp_path / "quality.json"
    flags = ["--format", "markdown", "--output", str(file)]
    assert main(["quality", str(alone.path), str(both.path), *flags]) == 0
    out = capsys.readouterr().out
    assert "| alone | ASR en | 1 | n/a | - |" in out
    # Two words were inserted and two deleted, of four.
    assert "| both | ASR en | 2 | 100.00 | - |" in out
    assert "counts as inserted: `alone`, `laugh`." in out
    assert "counts as inserted: `both`, `laugh`." in out
    rows = json.loads(file.read_text())
    assert [(row["wer"], row["n_without_words"]) for row in rows] == [(None, 1), (100.0, 1)]
