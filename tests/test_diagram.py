"""Drawings hold what the network has: every expected figure is read off the spec or the paper."""

import random
import re
from xml.etree import ElementTree

import pytest
from random_networks import draw_network

from hrnet_search.arch import ArchSpec, hrnet
from hrnet_search.blueprint import canonical, reads
from hrnet_search.diagram import Drawing, draw, sheet, standalone
from hrnet_search.presets import preset

SVG = "{http://www.w3.org/2000/svg}"
TOP, ROW = 70, 46  # as in the module
TIMES = "\N{MULTIPLICATION SIGN}"


class Picture:
    """A drawing as a browser lays it out: its texts, and its paths by class, at their places."""

    def __init__(self, drawing: Drawing) -> None:
        self.root = ElementTree.fromstring(standalone(drawing))
        parts = {part.get("id"): part for part in self.root.iter(f"{SVG}g")}
        self.texts: list[tuple[int, int, str]] = []
        self.paths: list[tuple[int, str, str]] = []
        for element in self.root:
            if element.tag == f"{SVG}use":
                place = int(element.get("x", "0"))
                for shape in parts[element.get("href", "").removeprefix("#")]:
                    self._take(shape, place)
            else:
                self._take(element, 0)

    def _take(self, element: ElementTree.Element, x: int) -> None:
        if element.tag == f"{SVG}text":
            place = (x + int(element.get("x", "0")), int(element.get("y", "0")))
            self.texts.append((*place, element.text or ""))
        elif element.tag == f"{SVG}path":
            self.paths.append((x, element.get("class", ""), element.get("d", "")))

    def words(self) -> list[str]:
        return [text for _, _, text in self.texts]

    def edges(self) -> list[tuple[int, tuple[int, int]]]:
        """Place and (from branch, to branch) of each fusion edge, which begins behind the bars."""
        return [
            (x, ((int(source) - TOP) // ROW, (int(target) - TOP) // ROW))
            for x, _, path in self.paths
            for source, target in re.findall(r"M46 (\d+)L78 (\d+)", path)
        ]

    def units(self) -> list[tuple[int, int, int]]:
        """Place, branch and number of the residual units drawn as bars."""
        return [
            (x, int(name[-1]), path.count("z"))
            for x, name, path in self.paths
            if re.fullmatch(r"net-\d", name) and "h40" not in path
        ]


def picture(spec: ArchSpec, head: str = "v1") -> Picture:
    return Picture(draw(spec, head, title="a network"))


def test_w32_is_the_papers_figure() -> None:
    """Fig. 2 and section 3.1: 1, 4 and 3 modules of 2, 3 and 4 branches, widths C to 8C, four
    units per branch; the pose head reads the highest resolution, to which the last fusion leads.
    """
    found = picture(preset("w32"))
    names = ["1/4", "1/8", "1/16", "1/32", "stem", "stage 1", "stage 2", "stage 3", "stage 4"]
    widths = ["64", "256", "32", "64", "32", "64", "128", "32", "64", "128", "256"]
    expected = [*names, *widths, f"{TIMES} 4", f"{TIMES} 2", "v1", "head"]
    assert sorted(found.words()) == sorted(expected)
    whole = [[(j, i) for j in range(n) for i in range(n) if i != j] for n in (2, 3, 4)]
    # Of the last modules' edges those that a head of one map does not see are not built.
    last = [(1, 0), (2, 0), (3, 0)]
    edges = [edge for _, edge in found.edges()]
    assert sorted(edges) == sorted([*whole[0], *whole[1], *whole[2], *last])
    stem, stage1, *branches = [number for _, _, number in found.units()]
    assert (stem, stage1) == (2, 4)
    assert branches == [4] * (2 + 3 + 4 + 4)


def test_a_head_of_all_maps_has_a_line_from_each() -> None:
    found = picture(preset("w32"), "v2")
    x = max(x for x, _, _ in found.paths)
    (lines,) = [path for place, name, path in found.paths if place == x and name == "net-keep"]
    assert lines == "M0 70h20M0 116h20M0 162h20M0 208h20"
    assert f"{TIMES} 3" in found.words()
    box = next(part for part in found.root.iter(f"{SVG}rect") if part.get("x") == "20")
    assert (box.get("y"), box.get("height")) == ("53", str(3 * ROW + 34))


def test_every_module_of_random_networks_is_drawn_with_its_edges_and_units() -> None:
    rng = random.Random(0)
    for _ in range(60):
        drawn = draw_network(rng)
        spec = canonical(drawn.spec, drawn.head)
        found = picture(drawn.spec, drawn.head)
        modules = [module for stage in spec.stages for module in stage.modules]
        assert {edge for m in modules for edge in m.edges} == {e for _, e in found.edges()}
        by_place: dict[int, list[tuple[int, int]]] = {}
        for x, edge in found.edges():
            by_place.setdefault(x, []).append(edge)
        assert {tuple(sorted(e)) for e in by_place.values()} == {m.edges for m in modules} - {()}
        widths = [str(w) for stage in spec.stages for w in stage.num_channels if w]
        assert [w for w in widths if w not in found.words()] == []


def test_a_line_ends_where_nobody_reads_it() -> None:
    """Without the last fusion a head of one map leaves the other branches of the stage unread."""
    found = picture(hrnet(num_stages=2, num_modules=2, final=False))
    lines = [path for _, name, path in found.paths if name == "net-keep"]
    assert "M0 70h86M0 116h46" in lines  # the first module's fusion is the last to read branch 1
    assert "M0 70h86" in lines


def test_other_resolutions_than_the_highest_can_be_the_output() -> None:
    spec = hrnet(output_branch=2)
    found = picture(spec)
    assert reads(spec, "v1") == (2,)
    x = max(x for x, _, _ in found.paths)
    assert (x, "net-keep", f"M0 {TOP + 2 * ROW}h20") in found.paths


def test_many_modules_are_counted_not_drawn() -> None:
    """Seven stages of 100 modules whose neighbours all differ."""
    edges = [["all" if j % 2 else "neighbours" for j in range(100)] for _ in range(7)]
    spec = hrnet(num_stages=8, num_modules=100, num_branches=4, edges=edges)
    found = picture(spec, "v2")
    assert found.words().count("97 more") == 7  # 24 modules in all are three per stage
    assert len({x for x, _ in found.edges()}) == 21
    (width,) = re.findall(r'viewBox="0 0 (\d+)', standalone(draw(spec, "v2", title="")))
    assert int(width) < 2600


def test_equal_modules_are_one_with_their_number() -> None:
    found = picture(hrnet(num_stages=3, num_modules=(100, 5), within=False), "v2")
    assert [word for word in found.words() if word.startswith(TIMES)] == [
        f"{TIMES} 99",
        f"{TIMES} 4",
    ]


def test_many_units_are_a_number() -> None:
    blocks = [[6, 7]]
    found = picture(hrnet(num_stages=2, num_modules=1, num_blocks=blocks, stage1_blocks=100))
    assert {"100", "7"} <= set(found.words())
    assert [(branch, number) for _, branch, number in found.units()] == [(0, 2), (0, 6)]


@pytest.mark.parametrize(
    ("fuse", "sign"),
    [
        ("sum", "m-3 0h6"),
        ("multiply", "m-2-2l4 4"),
        ("concat", "m-1.5-3v6"),
        ("weighted", "m-3-2l1.5 4"),
    ],
)
def test_the_way_of_joining_is_marked_where_maps_meet(fuse: str, sign: str) -> None:
    found = picture(hrnet(num_stages=2, num_modules=1, fuse=fuse), "v2")
    (signs,) = [path for _, name, path in found.paths if name == "net-sign"]
    assert signs.count(sign) == 2


def test_names_cannot_break_out_of_the_picture() -> None:
    title = 'a<script>alert("1")</script>\n&\x07]]>'
    drawing = draw(hrnet(), "v1", title=title)
    assert "<script" not in drawing.svg
    found = Picture(drawing).root.find(f"{SVG}title")
    assert found is not None
    assert found.text == 'a<script>alert("1")</script> &\ufffd]]>'


def test_the_network_is_told_in_words_too() -> None:
    root = picture(preset("w32"), "v2").root
    assert root.get("role") == "img"
    told = root.find(f"{SVG}desc")
    assert told is not None
    assert (told.text or "").split("; ") == [
        "stem: width 64",
        "stage 1: 4 bottlenecks, width 64",
        f"stage 2: 1 module {TIMES} 4 blocks, widths 32/64, fusion ✓",
        f"stage 3: 4 modules {TIMES} 4 blocks, widths 32/64/128, fusion ✓✓✓✓",
        f"stage 4: 3 modules {TIMES} 4 blocks, widths 32/64/128/256, fusion ✓✓✓",
    ]


def test_networks_share_what_they_have_in_common() -> None:
    narrow, wide = (draw(preset(name), "v1", title=name) for name in ("w18", "w48"))
    assert narrow.parts == wide.parts
    assert sheet([narrow, wide]) == sheet([narrow])
    assert sheet([]) == ""
    assert len(wide.svg) < 1500
    assert draw(preset("w18"), "v1", title="w18") == narrow
