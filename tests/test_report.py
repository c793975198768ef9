"""The report: one file, complete, honest about its data, and safe to pass on."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from ears import MODEL, empty_like, made_up_cohort, made_up_statistics, paths_in
from hydrops import report
from hydrops.cohort import read_table, write_table
from hydrops.labels import LABYRINTH, ORGANS
from hydrops.methods import Done, methods_section
from hydrops.model.bundle import Bundle
from hydrops.paths import Paths, Unit
from hydrops.records import BLUR, NULLED, Record, write_record
from hydrops.report import quality_table, write_report
from hydrops.statistics import cohort_statistics

BUNDLE = Bundle(
    "net", "1.0.0", Path("models"), "ab" * 32,
    {"description": "trained on phantoms", "landmarks": ["helicotrema"]},
)  # fmt: skip
EVERY_ANALYSIS = frozenset(
    {"group comparison", "side comparison", "correlation with hearing", "agreement with reader"}
)
REASON = "PEI <series 6> is missing a slice & cannot be used"
VOID = {"meta", "img", "input", "br", "hr", "link"}


class Reader(HTMLParser):
    """Collects what a page holds, and fails where its tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [str(a[attribute]) for t, a in self.tags if t == tag and attribute in a]


def cohort_on_disk(folder: Path, count: int) -> tuple[Paths, pd.DataFrame]:
    """Tables, records and pictures of a cohort whose last participant is excluded."""
    paths = paths_in(folder)
    people, ears = made_up_cohort(count)
    last = people["participant_id"].iloc[-1] if count else ""
    ears = ears[ears["participant_id"] != last]
    columns = ["participant_id", "session_id", "side", "stage", "reason"]
    exclusions = pd.DataFrame([[last, "1", "both", "ingest", REASON]][:count], columns=columns)
    write_table(ears, paths.cohort(MODEL, "ears.tsv"))
    write_table(exclusions, paths.cohort(MODEL, "exclusions.tsv"))
    write_table(made_up_statistics(count, count - 1), paths.cohort(MODEL, "statistics.tsv"))
    for identifier in ears["participant_id"].unique():
        unit = Unit(identifier, "1")
        numbers = {side: {"uncertainty": 0.04, "endolymph": True} for side in ("left", "right")}
        record = Record("segment", identifier, "1", "done", numbers=numbers)
        write_record(paths.record("segment", unit, MODEL), record)
        for side in ("left", "right"):
            picture = paths.overlay(unit, side, MODEL)
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40), "grey").save(picture)
    return paths, people


def written(paths: Paths, people: pd.DataFrame, simulated: bool = False) -> str:
    output = paths.report(MODEL, "report.html")
    write_report(paths, BUNDLE, people, None, simulated, output, {"device": "cpu"})
    return output.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("report")
    paths, people = cohort_on_disk(folder, 8)
    return folder, written(paths, people)


def test_the_page_is_whole_and_fetches_nothing(told: tuple[Path, str]) -> None:
    folder, text = told
    page = Reader(text)
    assert all(source.startswith("data:image/") for source in page.values("img", "src"))
    assert page.values("link", "href") == page.values("script", "src") == []
    assert not re.search(r"@import|url\(|https?://", text)
    targets = [target for target in page.values("a", "href") if target.startswith("#")]
    there = {str(attributes["id"]) for _, attributes in page.tags if "id" in attributes}
    assert targets
    assert {target[1:] for target in targets} <= there
    assert all(page.values("img", "alt"))
    assert str(folder) not in text


def test_it_counts_measured_and_excluded_and_gives_the_reason(told: tuple[Path, str]) -> None:
    words = Reader(told[1]).words
    assert "14 of 16 ears could be measured" in words
    assert REASON in words
    assert "<series 6>" not in told[1]


def test_it_names_model_checksum_versions_and_options(told: tuple[Path, str]) -> None:
    words = Reader(told[1]).words
    for expected in (MODEL, "ab" * 32, "dcm2niix", "trained on phantoms", "option device"):
        assert expected in words
    assert "Research use only" in words


def test_each_ear_can_be_looked_at(told: tuple[Path, str]) -> None:
    page = Reader(told[1])
    overlays = [alt for alt in page.values("img", "alt") if alt.startswith("Images of the ")]
    assert len(overlays) == 14
    assert len(set(overlays)) == 14


def test_each_ratio_stands_beside_its_interval(told: tuple[Path, str]) -> None:
    ears = made_up_cohort(8)[1]
    (ear,) = ears.query(
        "participant_id == '02' and side == 'left' and organ == 'labyrinth'"
    ).to_dict("records")
    assert f"{ear['ci_low']:.2f} to {ear['ci_high']:.2f}" in Reader(told[1]).words


def test_the_same_cohort_gives_the_same_report(told: tuple[Path, str], tmp_path: Path) -> None:
    paths, people = cohort_on_disk(tmp_path, 8)
    assert written(paths, people) == told[1]


def test_simulation_is_said_only_of_simulated_data(told: tuple[Path, str], tmp_path: Path) -> None:
    assert "SIMULATED DATA" not in Reader(told[1]).words
    paths, people = cohort_on_disk(tmp_path, 8)
    words = Reader(written(paths, people, simulated=True)).words
    assert "SIMULATED DATA" in words
    assert "digital phantom" in words


def test_a_large_cohort_is_linked_to_not_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, people = cohort_on_disk(tmp_path, 8)
    monkeypatch.setattr(report, "MOST_EMBEDDED", 5)
    page = Reader(written(paths, people))
    assert not [alt for alt in page.values("img", "alt") if "HYDROPS-Mi2" in alt]
    links = [target for target in page.values("a", "href") if target.endswith("overlay.png")]
    assert len(links) == 14
    for target in links:
        assert not target.startswith("/")
        assert (paths.report(MODEL, "report.html").parent / target).is_file()


def test_an_empty_cohort_has_a_report_too(tmp_path: Path) -> None:
    paths, people = cohort_on_disk(tmp_path, 8)
    ears = empty_like(made_up_cohort(8)[1])
    write_table(ears, paths.cohort(MODEL, "ears.tsv"))
    write_table(cohort_statistics(ears, people, None), paths.cohort(MODEL, "statistics.tsv"))
    words = Reader(written(paths, people)).words
    assert "0 of 16 ears could be measured" in words
    assert "No ear has an EH volume ratio." in words


def test_a_table_of_participants_alone_has_a_report_too(tmp_path: Path) -> None:
    """As `hydrops scan` writes it: nobody's group, affected side or hearing."""
    paths, people = cohort_on_disk(tmp_path, 8)
    bare = people[["participant_id", "session_id", "source"]]
    ears = read_table(paths.cohort(MODEL, "ears.tsv"))
    write_table(cohort_statistics(ears, bare, None), paths.cohort(MODEL, "statistics.tsv"))
    words = Reader(written(paths, bare)).words
    assert "14 of 16 ears could be measured" in words
    assert "all participants" in words


def test_who_has_no_group_is_not_called_all_participants(tmp_path: Path) -> None:
    paths, people = cohort_on_disk(tmp_path, 8)
    people["group"] = people["group"].where(people["participant_id"] != "03")
    words = Reader(written(paths, people)).words
    assert "all participants" not in words
    assert words.count("no group") > 2


def test_an_ear_seen_in_two_sessions_is_graded_once(tmp_path: Path) -> None:
    paths, people = cohort_on_disk(tmp_path, 8)
    ears = read_table(paths.cohort(MODEL, "ears.tsv"))
    once = written(paths, people)
    grades = re.compile("Ears by grade.*?</table>", re.DOTALL)
    again, listed = ears.assign(session_id="9"), people.assign(session_id="9")
    write_table(pd.concat([again, ears]), paths.cohort(MODEL, "ears.tsv"))
    twice = written(paths, pd.concat([people, listed], ignore_index=True))
    assert grades.findall(once) == grades.findall(twice) != []
    assert "an ear counts once" in twice
    assert "an ear counts once" not in once


def test_words_of_a_table_cannot_become_markup(tmp_path: Path) -> None:
    paths, people = cohort_on_disk(tmp_path, 8)
    evil = "<script>alert(1)</script>"
    people["group"] = people["group"].replace("control", evil)
    statistics = made_up_statistics(8, 7).replace("control", evil)
    write_table(statistics, paths.cohort(MODEL, "statistics.tsv"))
    text = written(paths, people)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_ears_that_stand_out_are_marked(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    _, ears = made_up_cohort(8)
    for number, identifier in enumerate(ears["participant_id"].unique()):
        unit = Unit(identifier, "1")
        sides = {side: {"uncertainty": 0.04 + 0.001 * number} for side in ("left", "right")}
        if identifier == "03":
            sides["right"]["uncertainty"] = 0.3
        for side, told in sides.items():
            told[NULLED] = (identifier, side) != ("04", "left")
            told[BLUR] = {"01": None, "06": 0.6}.get(identifier, 0.45)
        record = Record("segment", identifier, "1", "done", numbers=sides)
        write_record(paths.record("segment", unit, MODEL), record)
        moved = {"rotation_deg": 4.0 if identifier == "05" else 0.2, "translation_mm": 0.2}
        record = Record(
            "register",
            identifier,
            "1",
            "done",
            numbers={"roles": {"PPI": moved, "PEI": moved}, "csf_ratio": 0.3},
        )
        write_record(paths.record("register", unit), record)
    here = (ears.participant_id == "07") & (ears.side == "left") & (ears.organ == LABYRINTH)
    ears.loc[here, "tfs_mm3"] = 90.0
    table = quality_table(paths, MODEL, ears).set_index(["participant_id", "side"])["look_first"]
    marked = table[table != ""]
    assert marked.to_dict() == {
        ("03", "right"): "uncertain segmentation",
        ("04", "left"): "endolymph not nulled by the PPI",
        ("05", "left"): "much motion between series",
        ("05", "right"): "much motion between series",
        ("06", "left"): "blurred images",
        ("06", "right"): "blurred images",
        ("07", "left"): "unusual volume",
    }


def test_the_report_says_over_what_p_is_corrected(told: tuple[Path, str]) -> None:
    words = "over organs and measures and, of groups, over all pairs of them."
    assert words in " ".join(Reader(told[1]).words.split())


def test_the_sentence_of_a_comparison_has_the_larger_group_first() -> None:
    statistics = made_up_statistics(10)
    (sentence,) = report._group_sentences(statistics, (LABYRINTH,))
    assert "meniere lies 0.2" in sentence
    assert "above control" in sentence
    low, high = (float(v) for v in re.findall(r"CI ([+-][\d.]+) to ([+-][\d.]+)", sentence)[0])
    assert 0 < low < 0.25 < high < 0.3
    assert len(report._group_sentences(statistics, (LABYRINTH, *ORGANS))) == 4


@pytest.mark.parametrize("landmarks", [[], ["helicotrema"]])
def test_the_methods_say_what_the_model_is_and_gives(landmarks: list[str]) -> None:
    told = {"description": "2D U-Net on axial slices", "landmarks": landmarks}
    words = Reader(methods_section(replace(BUNDLE, metadata=told), Done())).words
    assert "net-1.0.0 (2D U-Net on axial slices)" in words
    assert "A paired 3D U-Net" not in words
    assert ("and the landmarks" in words) == bool(landmarks)


@pytest.mark.parametrize(
    ("done", "told", "untold"),
    [
        (
            Done(),
            ["dcm2niix", "The inversion images were registered", "minus the positive endolymph",
             "The EH volume ratio is", "The EH area ratio", "given MRC and HYDROPS-Mi2"],
            ["given as NIfTI", "weighted so that", "made by the scanner", "groups were", "hearing",
             "ICC", "Holm's", "after Holm"],
        ),
        (
            Done(converted=False, registered=frozenset(), volume_ratios=False),
            ["given as NIfTI", "given the MRC alone", "no EH ratio"],
            ["dcm2niix", "inversion image", "HYDROPS", "The EH volume ratio is", "EH area ratio",
             "gave the volume fraction of endolymph"],
        ),
        (
            Done(registered=frozenset({"PPI"}), volume_ratios=False),
            ["The inversion image was registered", "minus the MRC", "No ear has an EH volume ratio",
             "The EH area ratio"],
            ["positive endolymph image", "The EH volume ratio is"],
        ),
        (
            Done(registered=frozenset({"HYDROPS"})),
            ["HYDROPS was registered", "made by the scanner", "The EH volume ratio is"],
            ["inversion images were"],
        ),
        (
            Done(analyses=frozenset({"group comparison", "agreement with reader"})),
            ["groups were compared", "after Holm", "Agreement is ICC"],
            ["hearing", "sides were compared"],
        ),
    ],
)  # fmt: skip
def test_the_methods_tell_what_was_done_and_nothing_else(
    done: Done, told: list[str], untold: list[str]
) -> None:
    bundle = replace(BUNDLE, metadata=BUNDLE.metadata | {"calibrations": {}})
    section = methods_section(bundle, done)
    words = Reader(section[: section.index("<ol")] + "</section>").words
    assert [text for text in told if text not in words] == []
    assert [text for text in untold if text in words] == []
    assert ("of the two inversion images over the MRC" in words) == done.volume_ratios


@pytest.mark.parametrize(
    ("cited", "author"),
    [
        ("by dcm2niix", "Li X"), ("by ANTs", "Avants BB"),
        ("positive endolymph image", "Naganawa S"), ("slices)", "Yoo TW"),
        ("slices)", "Stebani J"), ("in MONAI", "Cardoso MJ"),
        ("and PyTorch", "Paszke A"), ("The EH area ratio", "Cho YS"),
        ("Nakashima et al.", "Nakashima T"), ("after Holm", "Holm S"),
        ("ICC(2,1)", "Shrout PE"), ("Bland-Altman", "Bland JM"), ("by Snakemake", "Mölder F"),
    ],
)  # fmt: skip
def test_what_is_cited_is_what_its_number_says(cited: str, author: str) -> None:
    told = {"description": "2D U-Net on axial slices", "landmarks": ["helicotrema"]}
    section = methods_section(replace(BUNDLE, metadata=told), Done(analyses=EVERY_ANALYSIS))
    listed = re.findall(r"<li>(.*?)</li>", section)
    (numbers,) = re.findall(rf"{re.escape(html.escape(cited))}[^\[\]]*\[([\d, ]+)\]", section)[:1]
    assert any(listed[int(n) - 1].startswith(author) for n in numbers.split(", "))
    assert "@" not in section
