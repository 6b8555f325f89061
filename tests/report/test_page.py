"""The report: all that the runs hold, escaped, from one file; also of runs that are unfinished, old or broken."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from datetime import date
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from browser import Chromium
from runs_folder import edit, forget_digests, make_run, oof_table
from standing_clock import Noon

from kagglehms.cli.commands import main, parse
from kagglehms.cli.report_commands import View
from kagglehms.data.competition import PROBABILITY_COLUMNS, VOTE_COLUMNS
from kagglehms.errors import RunError, UsageError
from kagglehms.report import templating
from kagglehms.report.page import write_report
from kagglehms.report.style import COLOURS, DARK, LIGHT
from kagglehms.runs.blends import Blend
from kagglehms.runs.prior_correction import PriorCorrection
from kagglehms.training.metric import kl_score
from kagglehms.training.recipes import get_recipe

HOSTILE = "<script>alert('x')</script><img src=https://example.org/x.png>&\"'"


class Links(HTMLParser):
    """Every tag, and every attribute that could fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        fetching = {"src", "href", "xlink:href", "action", "data", "srcset", "poster"}
        self.targets += [value or "" for name, value in attributes if name in fetching]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two finished runs and a blend of them."""
    folder = tmp_path / "runs"
    make_run(folder, "baseline")
    make_run(folder, "two-stage")
    (folder / "blends").mkdir()
    (folder / "blends/mine.json").write_bytes(
        Blend("mine", ("baseline", "two-stage"), (0.25, 0.75), scores={"nested": 0.4321}).to_json()
    )
    return folder


def report(runs: Path, **options: object) -> str:
    out = runs.parent / "report.html"
    options = {"n_hardest": 1} | options  # each takes as long as the rest of a run
    write_report(runs, out, **options)  # type: ignore[arg-type]
    return out.read_text()


def test_a_blend_for_many_votes_is_called_so(runs: Path) -> None:
    assert "class priors corrected" not in report(runs)
    even = (1 / 6,) * 6
    blend = Blend("many", ("baseline",), (1.0,), prior=PriorCorrection("many", even, (even,)))
    (runs / "blends/many.json").write_bytes(blend.to_json())
    assert "class priors corrected to those of records with many votes" in report(runs)


def test_every_section_is_there_and_nothing_is_fetched(runs: Path) -> None:
    page = report(runs)
    for section in ("ladder", "curves", "groups", "details", "blends", "hardest", "provenance"):
        assert f'<section id="{section}">' in page
    assert "0.4321" in page
    assert "0.6290" in page  # the published score of mosaic-xloss
    links = Links(page)
    assert "script" not in links.tags
    assert "link" not in links.tags
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in links.targets)
    assert "url(http" not in page
    assert "default-src &#39;none&#39;" in page


def test_a_page_says_when_it_was_written(runs: Path) -> None:
    before = date.today()
    page = report(runs)
    days = {f"{day.day} {day:%B %Y}" for day in (before, date.today())}
    assert any(re.search(rf"as of {day}, \d\d:\d\d\.", page) for day in days)


def test_a_run_in_the_folder_of_the_blends_is_shown_and_is_no_blend(runs: Path) -> None:
    """Older versions let a run have that name."""
    other = make_run(runs.parent / "other", "demo")
    shutil.copytree(other, runs / "blends", dirs_exist_ok=True)
    (runs / "blends/recipe.json").write_bytes(replace(get_recipe("demo"), name="blends").to_json())
    edit(forget_digests(runs / "blends") / "run.json", recipe="blends")
    assert (runs / "blends/run.json").is_file()
    written = write_report(runs, runs.parent / "report.html")
    assert written.problems == ()
    assert written.n_runs == 3
    assert "0.4321" in (runs.parent / "report.html").read_text()


def test_the_scores_are_those_of_the_predictions(runs: Path) -> None:
    table = pl.concat([pl.read_parquet(p) for p in sorted((runs / "baseline").glob("fold*/oof.parquet"))])
    votes_NK = table.select(pl.col("^.*_vote$")).to_numpy()
    targets = votes_NK / votes_NK.sum(axis=1, keepdims=True)
    predictions = table.select(pl.col("^.*_probability$")).to_numpy()
    terms = np.where(targets > 0, targets * np.log(np.where(targets > 0, targets, 1) / predictions), 0).sum(
        axis=1
    )
    page = report(runs, recipe="baseline")
    assert "<strong>baseline</strong>" in page
    assert f"{terms.mean():.4f}" in page
    assert f"score {terms.max():.4f}" in page  # the hardest record
    assert f"EEG {table['eeg_id'][int(terms.argmax())]}" in page


def test_every_score_stands_beside_what_knowing_nothing_scores(runs: Path) -> None:
    """In the facts, the ladder, the groups and the details; and a run that is worse is named in words."""
    table = pl.concat([pl.read_parquet(p) for p in sorted((runs / "baseline").glob("fold*/oof.parquet"))])
    votes_NK = table.select(pl.col("^.*_vote$")).to_numpy()
    predictions = table.select(pl.col("^.*_probability$")).to_numpy()
    page = report(runs, recipe="baseline")
    targets_NK = votes_NK / votes_NK.sum(axis=1, keepdims=True)
    for rows in (np.ones(len(votes_NK), bool), votes_NK.sum(axis=1) >= 10):
        targets = targets_NK[rows]
        score = kl_score(targets, predictions[rows])
        prior = kl_score(targets, np.tile(targets.mean(axis=0), (len(targets), 1)))
        uniform = kl_score(targets, np.full_like(targets, 1 / 6))
        assert score > prior  # they are random
        assert f"{score:.4f} (class prior {prior:.4f}, uniform {uniform:.4f})" in page
        cells = (
            f'<td class="n{soft}">{v:.4f}</td>'
            for v, soft in ((score, ""), (prior, " soft"), (uniform, " soft"))
        )
        assert "".join(cells) in page
        assert f"class prior {prior:.4f}, uniform {uniform:.4f}</span>" in page
    assert "Worse than knowing nothing" in page
    assert "<li>baseline is worse than the class prior" in page


def test_good_runs_are_not_called_worse(tmp_path: Path) -> None:
    table = oof_table()
    votes_NK = table.select(VOTE_COLUMNS).to_numpy()
    good_NK = 0.9 * votes_NK / votes_NK.sum(axis=1, keepdims=True) + 0.1 / 6
    table = table.with_columns(
        pl.Series(n, column) for n, column in zip(PROBABILITY_COLUMNS, good_NK.T, strict=True)
    )
    make_run(tmp_path / "runs", "baseline", table=table)
    assert "worse than" not in report(tmp_path / "runs").lower()


def test_the_same_runs_give_the_same_bytes(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templating, "datetime", Noon)  # the page has the minute in which it was written
    page = report(runs)
    assert "8 April 2024" in page
    assert report(runs) == page


def test_first_weights_are_shown_and_a_mix_is_a_problem(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs", "baseline")
    assert '<th>first weights</th><td class="digest">not recorded</td>' in report(tmp_path / "runs")
    assert '<th>kept</th><td class="digest">the best evaluation, chosen on' in report(tmp_path / "runs")
    origin = {"source": "file", "name": "w.safetensors", "sha256": "ab" * 32}
    for name in ("run.json", "fold0/result.json", "fold1/result.json"):
        edit(folder / name, first_weights=origin)
    page = report(tmp_path / "runs")
    assert '<td class="digest">w.safetensors, sha256 abababababab</td>' in page
    assert "Not everything could be read" not in page
    edit(folder / name, first_weights={"source": "none", "name": "", "sha256": ""})
    page = report(tmp_path / "runs")
    assert "none, from scratch; w.safetensors, sha256 abababababab" in page
    assert "fold1/result.json: started from other first weights than its run" in page


def test_every_string_of_the_data_is_escaped(tmp_path: Path) -> None:
    table = oof_table().with_columns(pl.lit(HOSTILE).alias("expert_consensus"))
    folder = make_run(tmp_path / "runs", "baseline", table=table, device=HOSTILE)
    edit(
        folder / "run.json",
        fingerprint=HOSTILE,
        versions={HOSTILE: HOSTILE},
        identity={"records": HOSTILE, "store": HOSTILE, "folds": HOSTILE},
        first_weights={"source": "file", "name": HOSTILE, "sha256": HOSTILE},
    )
    (folder / "fold0/history.csv").write_text(HOSTILE)
    shutil.copytree(folder, tmp_path / "runs" / "$x_1$ <b onclick=x>")
    page = report(tmp_path / "runs")
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    links = Links(page)
    assert not {"script", "img", "b"} & set(links.tags)
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in links.targets)
    assert "$x_1$ &lt;b onclick=x&gt;" in page


def test_unfinished_runs_are_shown_as_far_as_they_are(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "baseline", finished=(1,), begun=(0,))
    make_run(tmp_path / "runs", "percentiles", finished=(), begun=(0, 1))
    page = report(tmp_path / "runs")
    assert "Best so far, unfinished" in page
    assert "1 of 2 folds" in page
    assert "0 of 2 folds" in page
    assert page.count("Learning curves of") == 2
    shutil.rmtree(tmp_path / "runs/baseline")
    page = report(tmp_path / "runs")
    assert '<section id="hardest">' not in page
    assert '<section id="curves">' in page


def test_a_broken_run_costs_its_own_part_and_is_named(runs: Path) -> None:
    (runs / "baseline/run.json").write_text("{")
    (runs / "two-stage/fold0/oof.parquet").write_bytes(b"PAR1")
    bad = pl.read_parquet(runs / "two-stage/fold1/oof.parquet").with_columns(
        pl.lit(0.9).alias("gpd_probability")
    )
    bad.write_parquet(runs / "two-stage/fold1/oof.parquet")
    (runs / "two-stage/fold1/history.csv").write_text("stage,epoch\n0,1\n")
    (runs / "blends/mine.json").write_text("[]")
    written = write_report(runs, runs.parent / "report.html")
    assert written.focus == "baseline"
    for name in (
        "baseline/run.json",
        "fold0/oof.parquet",
        "fold1/oof.parquet",
        "fold1/history.csv",
        "blends/mine.json",
    ):
        assert any(name in problem for problem in written.problems), name
    assert "Not everything could be read" in (runs.parent / "report.html").read_text()


def test_what_cannot_be_reported_is_refused_in_one_line(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        report(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no run"):
        report(tmp_path / "empty")
    with pytest.raises(UsageError, match="did you mean 'baseline'"):
        report(runs, recipe="basline")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_report(runs, tmp_path / "file" / "report.html", n_hardest=0)


def test_hardest_records_say_why_they_have_no_traces(runs: Path, tmp_path: Path) -> None:
    assert "no store of decoded recordings was given" in report(runs)
    assert "no store; run `kagglehms prepare" in report(runs, store=tmp_path / "nowhere")


def test_the_command_of_a_record_names_the_folders_of_the_page(runs: Path, tmp_path: Path) -> None:
    page = report(runs, store=tmp_path / "decoded", data=tmp_path / "rest")
    found = re.search(r"<code>kagglehms (view [^<]*)</code>", page)
    assert found
    view = parse("view", shlex.split(unescape(found[1]))[1:])
    assert isinstance(view, View)
    assert (view.data, view.store, view.runs) == (tmp_path / "rest", tmp_path / "decoded", runs)


@pytest.fixture(scope="module")
def trained_report(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of runs that were really trained, with their store, by the command itself."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    where = dist.parent
    arguments = [
        "report",
        "--runs",
        str(where / "runs"),
        "--store",
        str(where / "store"),
        "--out",
        str(out),
        "--hardest",
        "2",
    ]
    assert main(arguments) == 0
    return out


def test_hardest_records_have_traces_images_and_votes(trained_report: Path) -> None:
    page = trained_report.read_text()
    assert page.count('aria-label="Traces of EEG') == 2
    assert page.count('aria-label="Mel images of EEG') == 2
    assert page.count('aria-label="Spectrogram of EEG') == 2
    assert "Fp1–F7" in page
    assert "µV" in page
    assert "Without traces" not in page
    assert len(page) < 3e6
    known = {*COLOURS.values(), *vars(LIGHT).values(), *vars(DARK).values()}
    assert {colour for colour in re.findall(r"#[0-9a-f]{6}\b", page.lower()) if colour not in known} == set()
    assert "rgb(" not in page


def test_json_says_what_was_written(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--runs", str(runs), "--out", str(tmp_path / "r.html"), "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n_runs"] == 2
    assert told["path"] == str(tmp_path / "r.html")
    assert told["problems"] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["laptop", "phone"])
def test_a_browser_shows_it(chromium: Chromium, trained_report: Path, width: int, dark: bool) -> None:
    with chromium.open(trained_report, width, 844, dark) as shown:
        pixels = shown.pixels()
        assert shown.value("document.documentElement.scrollWidth") <= width
        ink = shown.value("getComputedStyle(document.querySelector('svg.figure text')).fill")
        assert shown.complaints == []
        leaving = [r for r in shown.requests if not r.startswith("data:")]
        assert leaving == [trained_report.resolve().as_uri()]
    assert (pixels[:60].mean() < 60) == dark  # the paper
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    brightness = np.mean([int(v) for v in re.findall(r"\d+", ink)[:3]])
    assert (brightness > 128) == dark  # the figures' text stands out from it


@pytest.mark.parametrize("width", [390, 360])
def test_a_phone_shows_whole_figures_in_text_that_can_be_read(
    chromium: Chromium, trained_report: Path, width: int
) -> None:
    with chromium.open(trained_report, width, 844) as shown:
        texts = shown.assert_legible(width)
        outside = shown.value(
            "[...document.querySelectorAll('svg.figure, svg.figure text')].filter((part) => {"
            " const { left, right } = part.getBoundingClientRect(); return left < 0 || right > innerWidth; })"
            ".map((part) => part.ariaLabel ?? part.textContent)"
        )
    assert outside == []
    assert {"Fp1–F7", "seizure", "KL divergence"} <= set(texts)
    (scale,) = {text for text in texts if re.fullmatch(r"\d+ µV", text)}  # all have the same
    assert texts.count(scale) == 2
    assert len([text for text in texts if re.fullmatch(r"off by 0\.\d{3}", text)]) % 6 == 0
    assert any(re.fullmatch(r"\d+ votes?", text) for text in texts)
