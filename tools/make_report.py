#!/usr/bin/env python3
"""Makes one HTML page of what the command found: pictures with boxes, face crops, the distances as a heat map.

The page needs no other file and no network: pictures are inside as data URIs, and it has no script. A text table of the
distances, time and weights go to stdout.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import html
import io
import json
import math
import pathlib

import facenet_tools  # noqa: F401 (first: it picks the Python that has torch)
from PIL import Image

from facenet_tools import cli, pictures
from facenet_tools.cli import ToolError

PICTURE_SIDE = 1600  # pixels: sharp on a wide screen, some 300 KB
TABLE_FACES = 12  # a text table of more is wider than a terminal
MAP_FACES = 60  # a heat map of more has no room for its numbers
# Near to far. Lightness rises all the way, so the order shows without colours too.
RAMP = ((38, 34, 98), (62, 88, 165), (92, 150, 196), (160, 205, 214), (232, 240, 236))


@dataclasses.dataclass(frozen=True)
class Face:
    """One face of a picture, with the crop and the embedding that belong to it."""

    label: str
    number: int  # in its picture, as the command counts
    box: list[float]
    score: float
    landmarks: list[list[float]]
    crop: bytes
    crop_file: str
    embedding: list[float]


@dataclasses.dataclass(frozen=True)
class Picture:
    """An upright picture of width x height, shown as a smaller JPEG."""

    name: str
    width: int
    height: int
    jpeg: bytes
    faces: list[Face]


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_lines(path: str) -> list[dict]:
    """The JSON objects of a file, one a line."""
    try:
        text = cli.decoded(pathlib.Path(path).read_bytes(), path, "give the command's --json output.")
        return [json.loads(line) for line in text.splitlines() if line]
    except OSError as error:
        raise ToolError(f"{path}: cannot be read ({error.strerror}); give the command's --json output.") from error
    except ValueError as error:
        raise ToolError(f"{path}: is not JSON, one object a line; give the command's --json output.") from error


def read_bytes(path: str) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ToolError(f"{path}: cannot be read ({error.strerror}); run 'facenet detect --crops' again.") from error


def label_of(index: int) -> str:
    """A, B, … Z, AA, AB, …"""
    return (label_of(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)


def small_jpeg(picture: Image.Image) -> bytes:
    shown = picture.copy()
    shown.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    shown.save(out, "JPEG", quality=85, optimize=True)  # without the metadata of the original, such as its place
    return out.getvalue()


def one_model(models: set[str], file: str) -> None:
    """Refuses embeddings of several models: their distances say nothing, and equal dimensions would hide it."""
    if len(models) > 1:
        raise ToolError(f"{file}: holds embeddings of {len(models)} models ({', '.join(sorted(models))}), which cannot be "
                        "compared; embed all crops with one weight file.")


def gather(detected: list[dict], embedded: list[dict], faces_file: str, embeddings_file: str) -> list[Picture]:
    """Joins the lines of detect and of embed by the crops' paths. Pictures without a face stay; those that failed have a message
    of the command already, and go."""
    try:
        embedded = [line for line in embedded if "error" not in line and "faces" not in line]
        detected = [line for line in detected if "faces" in line or "error" not in line]
        embeddings = {line["image"]: line["embedding"] for line in embedded}
        one_model({line["model"] for line in embedded}, embeddings_file)
        count, out = 0, []
        for line in detected:
            picture = pictures.open_rgb(line["image"])
            faces = []
            for number, face in enumerate(line["faces"]):
                if face["crop"] not in embeddings:
                    raise ToolError(f"{embeddings_file}: has no line for {face['crop']}; embed all crops of {faces_file}.")
                faces.append(Face(label_of(count), number, face["box"], face["score"], face["landmarks"],
                                  read_bytes(face["crop"]), face["crop"], embeddings[face["crop"]]))
                count += 1
            out.append(Picture(pathlib.PurePath(line["image"]).name, *picture.size, small_jpeg(picture), faces))
    except (KeyError, TypeError) as error:
        raise ToolError(f"{faces_file}, {embeddings_file}: a line lacks {error}; give what 'facenet detect --json --crops' "
                        "and 'facenet embed --json --aligned' of the crops print.") from error
    if count == 0:
        raise ToolError(f"{faces_file}: no picture has a face, so there is nothing to report; give other pictures.")
    return out


# ---- the page --------------------------------------------------------------------------------------------------------

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#14181f;--soft:#5b6472;--rule:#dfe3ea;--accent:#1f6feb;
--warn-page:#fff4d6;--warn-ink:#6b4700;--warn-rule:#e8c66a;--box:#00e676;--shade:0 1px 2px #0f172a14,0 8px 24px #0f172a0f}
@media(prefers-color-scheme:dark){:root{--page:#0e1116;--card:#171b22;--ink:#e8ebf0;--soft:#9aa4b2;--rule:#2a303a;
--accent:#7ab0ff;--warn-page:#33280d;--warn-ink:#f7d98a;--warn-rule:#6d5516;--shade:0 1px 2px #0008}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:72rem;margin:auto;padding:clamp(1rem,4vw,3rem)}
h1{font-size:clamp(1.6rem,5vw,2.5rem);line-height:1.15;letter-spacing:-.02em;margin:0 0 .4rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.6rem 0 .3rem;letter-spacing:-.01em}
p{margin:.3rem 0;max-width:44rem}.soft,figcaption,dt{color:var(--soft)}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.note{border:1px solid var(--warn-rule);background:var(--warn-page);color:var(--warn-ink);border-radius:12px;
padding:.8rem 1rem;margin:1.2rem 0;max-width:none}
.good{border:1px solid var(--rule);background:var(--card);border-radius:12px;padding:.8rem 1rem;margin:1.2rem 0;max-width:none}
.photos{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,28rem),1fr));gap:0 1.5rem;align-items:start}
figure{margin:1rem 0 0}figcaption{margin:.5rem 0 0;font-size:.9rem;overflow-wrap:anywhere}
.photo{position:relative;overflow:hidden;border-radius:14px;box-shadow:var(--shade);width:fit-content;max-width:100%}
.photo img{display:block;max-width:100%;height:auto}
.box{position:absolute;border:clamp(1px,.25vw,2px) solid var(--box);border-radius:4px;box-shadow:0 0 0 1px #0009,inset 0 0 0 1px #0006}
.box b{position:absolute;left:-2px;bottom:100%;background:var(--box);color:#06210f;font-size:clamp(.6rem,1.5vw,.8rem);line-height:1.3;
padding:0 .4em;border-radius:4px 4px 0 0;white-space:nowrap}
.box.top b{bottom:auto;top:0;left:0;border-radius:0 0 4px 0}
.dot{--d:clamp(2px,.45vw,5px);position:absolute;width:var(--d);height:var(--d);margin:calc(var(--d) / -2);border-radius:50%;
background:#ff4081;box-shadow:0 0 0 1px #0008}
.faces{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:1rem;margin:1rem 0 0;padding:0}
.faces li{list-style:none;background:var(--card);border-radius:14px;box-shadow:var(--shade);overflow:hidden}
.face{aspect-ratio:1;background-size:cover;background-position:center}
.faces div+div{padding:.55rem .75rem .7rem;font-size:.85rem;line-height:1.4}
.faces strong{font-size:1rem}.faces span{display:block;color:var(--soft);overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:1rem 0 0;background:var(--card);border-radius:14px;box-shadow:var(--shade);padding:.8rem;
width:fit-content;max-width:100%}
table{border-collapse:separate;border-spacing:2px;font-variant-numeric:tabular-nums}
th{font-weight:600;font-size:.85rem;padding:2px}
th .face{width:2.6rem;border-radius:8px;margin:0 auto 2px}
tbody th{position:sticky;left:-.8rem;background:var(--card);z-index:1;padding:2px .5rem 2px .8rem;
white-space:nowrap}
tbody th .face{display:inline-block;vertical-align:middle;margin:0 0 0 .5rem}
td{min-width:clamp(3.1rem,min(calc(56rem / var(--n)),7vw),5.5rem);height:clamp(2.9rem,min(calc(48rem / var(--n)),6vw),4.2rem);text-align:center;font-size:.92rem;border-radius:6px}
.dense td{min-width:2.3rem;height:2.1rem;font-size:.78rem}.dense th .face{width:2rem}
td.self{color:var(--soft);border:1px dashed var(--rule)}
tr:hover td{outline:2px solid var(--accent);outline-offset:-2px}
.chips,.answers li{display:flex;flex-wrap:wrap;gap:.7rem;align-items:center}.chips{margin:.8rem 0 0}
.answers{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,13rem),1fr));gap:.7rem;margin:1rem 0 0;padding:0;list-style:none}
.answers.wide{grid-template-columns:1fr}.answers li{background:var(--card);border-radius:14px;box-shadow:var(--shade);padding:.6rem .8rem;
line-height:1.35;overflow-wrap:anywhere}.answers.wide strong{width:5.5rem}
.chip{font-size:.85rem;font-weight:600;text-align:center}.chip .face{display:block;width:3.4rem;border-radius:10px;margin:0 0 .1rem}
.ramp{display:flex;align-items:center;gap:.7rem;margin:.8rem 0 0;font-size:.85rem;color:var(--soft);flex-wrap:wrap}
.ramp i{width:12rem;max-width:45vw;height:.8rem;border-radius:.4rem}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(14rem,1fr));gap:1rem;margin:1rem 0 0}
dl div{background:var(--card);border-radius:14px;box-shadow:var(--shade);padding:.9rem 1rem}
dt{font-size:.85rem}dd{margin:.1rem 0 0;font-size:1.35rem;font-weight:600;letter-spacing:-.01em}
dd small{display:block;font-size:.85rem;font-weight:400;letter-spacing:0;color:var(--soft)}
footer{margin:3rem 0 0;font-size:.85rem;color:var(--soft)}
@media print{.scroll,.faces li,dl div{box-shadow:none;border:1px solid var(--rule)}}
""".strip()


def data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def colour(part: float) -> tuple[int, int, int]:
    """The ramp at 0 (near) … 1 (far)."""
    at = min(max(part, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(at), len(RAMP) - 2)
    return tuple(round(a + (b - a) * (at - low)) for a, b in zip(RAMP[low], RAMP[low + 1]))


def luminance(rgb: tuple[int, int, int]) -> float:
    """WCAG 2.1's relative luminance."""
    linear = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink_on(rgb: tuple[int, int, int]) -> str:
    """Black or white, whichever has more contrast."""
    light = luminance(rgb) + 0.05
    return "#000" if light / 0.05 >= 1.05 / light else "#fff"


def hex_of(rgb: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def show_picture(picture: Picture) -> str:
    """The picture; boxes and landmarks lie over it in per cent, so they fit at any width."""
    def across(x: float) -> str:
        return f"{100 * x / picture.width:.3f}%"

    def down(y: float) -> str:
        return f"{100 * y / picture.height:.3f}%"

    marks = []
    for face in picture.faces:
        x0, y0, x1, y1 = face.box
        high = "box top" if y0 < picture.height * 0.06 else "box"
        marks.append(f'<span class="{high}" style="left:{across(x0)};top:{down(y0)};width:{across(x1 - x0)};'
                     f'height:{down(y1 - y0)}"><b>{face.label}</b></span>')
        marks += [f'<span class="dot" style="left:{across(x)};top:{down(y)}"></span>' for x, y in face.landmarks]
    name = html.escape(picture.name)
    found = count(len(picture.faces), "face") if picture.faces else "no face"
    return (f'<figure><div class="photo"><img src="{data_uri("jpeg", picture.jpeg)}" width="{picture.width}" '
            f'height="{picture.height}" alt="{name}, {found} marked">{"".join(marks)}</div>'
            f"<figcaption>{name}: {picture.width} × {picture.height} pixels, {found}</figcaption></figure>")


def show_faces(all_pictures: list[Picture], distances: dict[tuple[str, str], float]) -> str:
    items = []
    several = len(all_pictures) > 1
    labels = [face.label for picture in all_pictures for face in picture.faces]
    for picture in all_pictures:
        for face in picture.faces:
            others = [(distances[face.label, label], label) for label in labels if label != face.label]
            near = "<span>nearest: {1}, {0:.2f}</span>".format(*min(others)) if others else ""
            where = f"<span>{html.escape(picture.name)}</span>" if several else ""
            size = f"{face.box[2] - face.box[0]:.0f} × {face.box[3] - face.box[1]:.0f} px"
            items.append(f'<li><div class="face {face.label}" role="img" aria-label="face {face.label}"></div><div>'
                         f"<strong>{face.label}</strong><span>score {face.score:.3f}</span><span>{size}</span>"
                         f"{near}{where}</div></li>")
    return f'<ul class="faces">{"".join(items)}</ul>'


def show_distances(faces: list[Face], distances: dict[tuple[str, str], float]) -> str:
    between = [d for (a, b), d in distances.items() if a != b]
    low, high = min(between), max(between)

    def cell(a: Face, b: Face) -> str:
        if a is b:
            return '<td class="self" title="the same face">0</td>'
        distance = distances[a.label, b.label]
        rgb = colour((distance - low) / (high - low) if high > low else 0.5)
        return (f'<td style="background:{hex_of(rgb)};color:{ink_on(rgb)}" title="{a.label} to {b.label}: '
                f'{distance:.4f}">{distance:.2f}</td>')

    def head(face: Face, scope: str) -> str:
        picture = f'<div class="face {face.label}"></div>'
        return f'<th scope="{scope}">{picture}{face.label}</th>' if scope == "col" else f"<th scope=row>{face.label}{picture}</th>"

    rows = [f"<tr>{head(a, 'row')}{''.join(cell(a, b) for b in faces)}</tr>" for a in faces]
    dense = ' class="dense"' if len(faces) > 16 else ""
    stops = ",".join(hex_of(rgb) for rgb in RAMP)
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="distances"><table{dense} style="--n:{len(faces)}"><thead><tr><td></td>'
            f"{''.join(head(face, 'col') for face in faces)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
            f'<div class="ramp"><span>near {low:.2f}</span><i style="background:linear-gradient(90deg,{stops})"></i>'
            f"<span>far {high:.2f}</span></div>")


def thumb(label: str) -> str:
    return f'<span class="chip"><span class="face {label}" role="img" aria-label="face {label}"></span>{label}</span>'


def show_recognition(folder: str, faces: list[Face], trained: bool) -> tuple[str, str]:
    """What verify, identify and cluster said of the faces' crops (FOLDER/verify.jsonl, …), as HTML and as text."""
    labels, parts, text = {face.crop_file: face.label for face in faces}, [], []
    files = {name: pathlib.Path(folder) / f"{name}.jsonl" for name in ("verify", "identify", "cluster")}
    said = {name: [line for line in read_lines(str(path)) if "error" not in line and line.get("faces") != []] if path.exists() else []
            for name, path in files.items()}  # without pictures that failed or have no face
    try:
        for line in said["verify"]:
            verdict = "the same person" if line["same"] else "two persons"
            numbers = f"distance {line['distance']:.3f}, threshold {line['threshold']:g}"
            text.append(f"verify    A and B: {verdict} ({numbers})")
            parts.append(f'<h2>Verify</h2><p class="chips">{thumb("A")}{thumb("B")}<span><strong>{verdict}</strong><br>'
                         f'<span class="soft">{numbers}</span></span></p>')
        if said["identify"]:
            rows = []
            for line in said["identify"]:
                best = next(iter(line["matches"]), None)
                who = f"{best['name']} ({best['distance']:.3f})" if best else "unknown"
                text.append(f"identify  {labels[line['image']]}: {who}")
                rows.append(f"<li>{thumb(labels[line['image']])}<span>"
                            + (f"<strong>{html.escape(best['name'])}</strong><br><span class=soft>distance {best['distance']:.3f}</span>"
                               if best else '<strong class="soft">unknown</strong>') + "</span></li>")
            parts.append("<h2>Identify</h2><p class=soft>Every second face is in a gallery under its letter; the others are looked up "
                         f'there. Farther than {said["identify"][0]["threshold"]:g} from all of them is unknown.</p>'
                         f'<ul class="answers">{"".join(rows)}</ul>')
        if said["cluster"]:
            groups = [sorted((labels[face["image"]] for face in line["faces"]), key=lambda x: (len(x), x)) for line in said["cluster"]]
            several = [group for group in groups if len(group) > 1]
            alone = sorted((group[0] for group in groups if len(group) == 1), key=lambda x: (len(x), x))
            text.append("cluster   " + "; ".join(" ".join(group) for group in several) + ("; " if several and alone else "")
                        + (f"alone: {' '.join(alone)}" if alone else ""))
            rows = [f'<li><strong>Person {i + 1}</strong>{"".join(thumb(x) for x in group)}</li>' for i, group in enumerate(several)]
            rows += [f'<li><strong>Once only</strong>{"".join(thumb(x) for x in alone)}</li>'] if alone else []
            parts.append(f'<h2>Cluster</h2><p class="soft">{count(len(groups), "person")} by {said["cluster"][0]["algorithm"].replace("_", " ")} '
                         f'over the pairs nearer than {said["cluster"][0]["threshold"]:g}.</p><ul class="answers wide">{"".join(rows)}</ul>')
    except (KeyError, TypeError, IndexError) as error:
        raise ToolError(f"{folder}: a line lacks {error}; give what 'facenet verify', 'identify' and 'cluster' print with --json "
                        "of the crops.") from error
    if parts and not trained:
        parts.insert(0, '<p class="note">With untrained weights the verdicts below are as random as the distances.</p>')
    return "".join(parts), "\n".join(text)


def show_times(bench: dict | None, detect_seconds: float | None, found: list[Picture]) -> str:
    entries = []
    if detect_seconds is not None:
        entries.append(("Faces found and cut out", f"{detect_seconds:.2f} s",
                        f"the whole command, {count(len(found), 'picture')}, with start, decoding and writing"))
    if bench is not None:
        entries.append(("One embedding", f"{bench['median_ms']:.1f} ms",
                        f"median of {bench['runs']}, {count(bench['threads'], 'thread')}, {bench['isa']}"))
        entries.append(("Arithmetic", f"{bench['gflops']:.0f} GFLOP/s", f"of {bench['peak_gflops']:.0f} at most"))
    body = "".join(f"<div><dt>{what}</dt><dd>{value}<small>{html.escape(how)}</small></dd></div>" for what, value, how in entries)
    return f"<h2>Time</h2><dl>{body}</dl>" if entries else ""


def page(found: list[Picture], trained: bool, model: str, recognised: str, times: str, threshold: float) -> str:
    faces = [face for picture in found for face in picture.faces]
    distances = {(a.label, b.label): math.dist(a.embedding, b.embedding) for a in faces for b in faces}
    where = found[0].name if len(found) == 1 else count(len(found), "picture")
    title = html.escape(f"{count(len(faces), 'face')} in {where}")
    statement = (
        '<p class="good"><strong>The weights are trained.</strong> Two pictures of one person are usually less than '
        f"{threshold:g} apart; calibrate on your own pictures before you rely on it.</p>"
        if trained else
        '<p class="note"><strong>The weights are untrained.</strong> They are random numbers, so the distances below show '
        "that everything runs, and nothing about who is in the pictures. Boxes and landmarks are real: the detector is "
        "trained.</p>"
    )
    crops = "".join(f".face.{face.label}{{background-image:url({data_uri('png', face.crop)})}}" for face in faces)
    shown = faces[:MAP_FACES]
    if len(faces) == 1:
        heat_map = "<p>There is one face, so there is nothing to compare it with.</p>"
    else:
        cut = f" The first {MAP_FACES} of {len(faces)} faces are shown." if len(shown) < len(faces) else ""
        heat_map = (f"<p class=soft>Euclidean, between the embeddings of each two faces: dark is near, light is far.{cut}</p>"
                    + show_distances(shown, distances))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{STYLE}
{crops}</style></head><body><main>
<header><h1>{title}</h1><p class="soft">Found, aligned and embedded by <code>facenet</code> on the CPU.</p></header>
{statement}
<div class="photos">{"".join(show_picture(picture) for picture in found)}</div>
<h2>What the network sees</h2>
<p class="soft">Each face as it is cut out for the embedder, with the detector's score and the size of its box.</p>
{show_faces(found, distances)}
<h2>Distances</h2>
{heat_map}
{recognised}
{times}
<footer>Model <code>{html.escape(model)}</code>. Pictures are inside this page; nothing is loaded from elsewhere.</footer>
</main></body></html>
"""


def summary(bench: dict | None, trained: bool, threshold: float) -> str:
    """Time and weights as text."""
    time = (f"time per face: {bench['median_ms']:.1f} ms (median of {bench['runs']}, minimum {bench['min_ms']:.1f} ms), "
            f"{bench['threads']} thread(s), {bench['isa']}\n") if bench is not None else ""
    return time + (f"weights: trained; two pictures of one person are usually less than {threshold:g} apart" if trained else
                   "weights: UNTRAINED (random numbers), so these distances mean nothing about who is in the pictures")


def table(found: list[Picture]) -> str:
    """The distances as text."""
    rows = [(face, f"{picture.name} #{face.number}") for picture in found for face in picture.faces]
    if len(rows) > TABLE_FACES:
        return f"{len(rows)} faces: the distances are in the report."
    width = max(len(name) for _, name in rows)
    out = ["Euclidean distances between the embeddings:\n",
           " " * (width + 4) + "".join(f"{face.label:>7}" for face, _ in rows)]
    for face, name in rows:
        numbers = (math.dist(face.embedding, other.embedding) for other, _ in rows)
        out.append(f"{face.label:>3} {name:{width}}" + "".join(f"{number:7.3f}" for number in numbers))
    return "\n".join(out)


# ---- the tool --------------------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  facenet detect --json --crops crops group.jpg > faces.jsonl\n"
        "  facenet embed --json --aligned crops/*.png > embeddings.jsonl\n"
        "  tools/make_report.py --faces faces.jsonl --embeddings embeddings.jsonl -o report.html\n\n"
        "exit status: 0 written, 2 error",
    )
    parser.add_argument("--faces", required=True, metavar="FILE", help="what 'facenet detect --json --crops DIR' printed")
    parser.add_argument("--embeddings", required=True, metavar="FILE",
                        help="what 'facenet embed --json --aligned DIR/*.png' printed")
    parser.add_argument("--recognition", metavar="DIR", help="a folder with verify.jsonl, identify.jsonl and cluster.jsonl: what these "
                        "commands printed of the crops with --json")
    parser.add_argument("--bench", metavar="FILE", help="what 'facenet bench --json' printed")
    parser.add_argument("--detect-seconds", type=float, metavar="S", help="how long detect took, for the report")
    parser.add_argument("--threshold", type=float, default=1.1, metavar="X", help="the model's, of 'facenet info' (1.1)")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the HTML file to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    embedded = read_lines(arguments.embeddings)
    found = gather(read_lines(arguments.faces), embedded, arguments.faces, arguments.embeddings)
    bench = read_lines(arguments.bench)[0] if arguments.bench else None
    times = show_times(bench, arguments.detect_seconds, found)
    trained, model = embedded[0]["trained"], embedded[0]["model"]
    faces = [face for picture in found for face in picture.faces]
    recognised, answers = show_recognition(arguments.recognition, faces, trained) if arguments.recognition else ("", "")
    cli.write_atomically(arguments.output, [page(found, trained, model, recognised, times, arguments.threshold).encode()])
    print(*filter(None, (table(found), answers, summary(bench, trained, arguments.threshold))), sep="\n\n")


if __name__ == "__main__":
    cli.run(main)
