"""Makes pictures of every type with every defect, and says what a decoder must do with each.

    python tests/python/make_image_corpus.py OUT           write the files
    python tests/python/make_image_corpus.py OUT --tool T  and print the table of what facenet_image_tool T does

A case is a file and either the pixels it must give or the error code. PNGs of the kinds that Pillow does not write
(16-bit colour, interlaced, 2 and 4 bits) come from the small encoder below, so their pixels are known from the samples
and not from a second decoder.
"""

import argparse
import io
import pathlib
import struct
import sys
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass
class Case:
    name: str
    data: bytes
    pixels: np.ndarray = None  # what must come out, or None
    error: str = ""  # the name of the Errc, where nothing may come out
    lossy: bool = False  # two right JPEG decoders differ by a few levels
    edge: int = 0  # so many columns on the right are not compared


def photo(w=61, h=47, seed=0):
    """A smooth picture with edges and a little noise, so that JPEG behaves as on photographs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    base = np.stack([np.sin(x / 9 + seed), np.cos(y / 7), np.sin((x + y) / 13)], -1) * 90 + 128
    base[h // 4 : h // 2, w // 3 : w // 2] += 60
    return np.clip(base + rng.normal(0, 3, base.shape), 0, 255).astype(np.uint8)


# ---- PNG -------------------------------------------------------------------------------------------------------------


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_chunks(data):
    """(offset, type, length) of every chunk."""
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield at, data[at + 4 : at + 8], length
        at += 12 + length


def packed_rows(samples, depth, rng):
    """Filtered scan lines of (h, w, channels) samples; every filter type gets used."""
    h, w, channels = samples.shape
    if not h or not w:
        return b""
    if depth == 16:
        rows = samples.astype(">u2").reshape(h, -1).view(np.uint8).reshape(h, -1)
    elif depth == 8:
        rows = samples.astype(np.uint8).reshape(h, -1)
    else:
        bits = (samples.reshape(h, -1)[:, :, None] >> np.arange(depth)[::-1]) & 1
        rows = np.packbits(bits.reshape(h, -1).astype(np.uint8), axis=1)
    bpp = max(1, channels * depth // 8)
    out, above = [], np.zeros(rows.shape[1], np.int64)
    for row in rows.astype(np.int64):
        left = np.concatenate([np.zeros(bpp, np.int64), row])[: len(row)]
        corner = np.concatenate([np.zeros(bpp, np.int64), above])[: len(row)]
        p = left + above - corner
        pa, pb, pc = abs(p - left), abs(p - above), abs(p - corner)
        paeth = np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, above, corner))
        kind = int(rng.integers(5))
        predicted = [0, left, above, (left + above) // 2, paeth][kind]
        out.append(bytes([kind]) + ((row - predicted) & 255).astype(np.uint8).tobytes())
        above = row
    return b"".join(out)


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def encode_png(samples, colour, depth, interlace=False, palette=None, trns=None, extra=b"", idat=1):
    h, w, _ = samples.shape
    rng = np.random.default_rng(w * h + depth)
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlace else [samples]
    data = zlib.compress(b"".join(packed_rows(p, depth, rng) for p in passes))
    out = PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlace))) + extra
    if palette is not None:
        out += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    if trns is not None:
        out += chunk(b"tRNS", trns)
    step = -(-len(data) // idat)
    for i in range(0, len(data), step):
        out += chunk(b"IDAT", data[i : i + step])
    return out + chunk(b"IEND", b"")


def over_white(rgb, alpha):
    rgb, alpha = rgb.astype(np.int64), alpha.astype(np.int64)
    if alpha.ndim == 2:
        alpha = alpha[..., None]
    return ((rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def to8(samples, depth):
    return (samples >> 8 if depth == 16 else samples * (255 // (2**depth - 1))).astype(np.uint8)


def png_cases():
    rng = np.random.default_rng(7)
    for interlace in (False, True):
        tail = "-interlaced" if interlace else ""
        for w, h in ((33, 21), (1, 1), (3, 2)):
            size = f"-{w}x{h}{tail}"
            for colour, name, depths in (
                (0, "grey", (1, 2, 4, 8, 16)),
                (2, "rgb", (8, 16)),
                (4, "grey-alpha", (8, 16)),
                (6, "rgba", (8, 16)),
            ):
                channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
                for depth in depths:
                    s = rng.integers(0, 2**depth, (h, w, channels))
                    eight = to8(s, depth)
                    rgb = eight[..., :3] if channels >= 3 else eight[..., :1].repeat(3, 2)
                    data = encode_png(s, colour, depth, interlace)
                    want = over_white(rgb, eight[..., -1]) if colour & 4 else rgb
                    yield Case(f"png-{name}-{depth}bit{size}", data, want)
                    if not colour & 4:  # one colour is transparent: that of the first pixel
                        trns = s[0, 0].astype(">u2").tobytes()
                        alpha = np.where((s == s[0, 0]).all(-1), 0, 255)
                        data = encode_png(s, colour, depth, interlace, trns=trns)
                        yield Case(f"png-{name}-{depth}bit-trns{size}", data, over_white(rgb, alpha))
            for depth in (1, 2, 4, 8):
                s = rng.integers(0, 2**depth, (h, w, 1))
                palette = rng.integers(0, 256, (2**depth, 3))
                yield Case(
                    f"png-palette-{depth}bit{size}",
                    encode_png(s, 3, depth, interlace, palette),
                    palette[s[..., 0]].astype(np.uint8),
                )
                known = rng.integers(0, 256, max(1, 2**depth // 2)).astype(np.uint8)  # the rest is opaque
                alpha = np.full(2**depth, 255, np.uint8)
                alpha[: len(known)] = known
                yield Case(
                    f"png-palette-{depth}bit-trns{size}",
                    encode_png(s, 3, depth, interlace, palette, known.tobytes()),
                    over_white(palette[s[..., 0]], alpha[s[..., 0]]),
                )
                if depth > 1:
                    short = palette[: 2**depth // 2]
                    dark = np.concatenate([short, np.zeros_like(short)])
                    yield Case(
                        f"png-palette-{depth}bit-index-past-end{size}",
                        encode_png(s, 3, depth, interlace, short),
                        dark[s[..., 0]].astype(np.uint8),
                    )
    s = photo()
    yield Case("png-many-idat", encode_png(s, 2, 8, idat=17), s)
    text_and_gamma = chunk(b"gAMA", b"\0\0\xb1\x8f") + chunk(b"tEXt", b"a\0b")
    yield Case("png-text-and-gamma", encode_png(s, 2, 8, extra=text_and_gamma), s)
    yield Case("png-trailing-bytes", encode_png(s, 2, 8) + b"\0" * 100, s)
    for big in (False, True):
        for orientation in range(1, 9):
            data = encode_png(s, 2, 8, extra=chunk(b"eXIf", exif_tiff(orientation, big)))
            yield Case(f"png-exif-{orientation}-{'MM' if big else 'II'}", data, upright(s, orientation))
    yield from png_oddities(s)
    yield from png_defects(encode_png(s, 2, 8, idat=3), s)


def raw_profile(exif):
    return b"\nexif\n%8d\n" % len(exif) + exif.hex().encode() + b"\n"


def png_oddities(s):
    """What libpng or Pillow shows, though not every decoder does."""
    good = encode_png(s, 2, 8)
    parts = {kind: good[at + 8 : at + 8 + length] for at, kind, length in png_chunks(good)}
    head, body, tail = chunk(b"IHDR", parts[b"IHDR"]), parts[b"IDAT"], chunk(b"IEND", b"")
    idat, png = chunk(b"IDAT", body), PNG_SIGNATURE
    yield Case("png-no-iend", png + head + idat, s)
    yield Case("png-cut-in-text", png + head + idat + chunk(b"tEXt", b"a\0b" * 9)[:20], s)
    yield Case("png-empty-idats", png + head + chunk(b"IDAT", b"") + idat + chunk(b"IDAT", b"") + tail, s)
    yield Case("png-bytes-behind-the-data", png + head + chunk(b"IDAT", body + b"\0" * 300) + tail, s)
    yield Case("png-no-adler", png + head + chunk(b"IDAT", body[:-4]) + tail, s)
    packer = zlib.compressobj()
    open_end = packer.compress(zlib.decompress(body)) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield Case("png-flushed-but-not-finished", png + head + chunk(b"IDAT", open_end) + tail, s)
    small = zlib.compressobj(wbits=9)
    short = small.compress(zlib.decompress(body)) + small.flush()
    yield Case("png-window-of-512", png + head + chunk(b"IDAT", short) + tail, s)
    yield Case("png-unknown-critical", png + head + chunk(b"ABCD", b"x") + idat + tail, s)
    yield Case("png-chunk-before-header", png + chunk(b"vpAg", b"x" * 9) + head + idat + tail, s)
    yield Case("png-palette-of-rgb", png + head + chunk(b"PLTE", b"abcd") + idat + tail, s)
    yield Case("png-transparency-behind-data", png + head + idat + chunk(b"tRNS", b"\0" * 6) + tail, s)
    yield Case("png-short-transparency", png + head + chunk(b"tRNS", b"\0") + idat + tail, s)
    frame = struct.pack(">IIIIIHHBB", 0, s.shape[1], s.shape[0], 0, 0, 1, 10, 0, 0)
    animated = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", frame) + idat
    yield Case("png-animated", png + head + animated + chunk(b"fcTL", b"\0\0\0\1" + frame[4:]) +
               chunk(b"fdAT", b"\0\0\0\2" + body) + tail, s)
    rng = np.random.default_rng(3)
    index, palette = rng.integers(0, 4, (21, 33, 1)), rng.integers(0, 256, (4, 3))
    alpha = np.array([0, 90, 255, 255])
    p = encode_png(index, 3, 2, palette=palette)
    parts = [chunk(kind, p[at + 8 : at + 8 + length]) for at, kind, length in png_chunks(p)]
    want = over_white(palette[index[..., 0]].astype(np.uint8), alpha[index[..., 0]])
    trns = chunk(b"tRNS", bytes([0, 90]))
    yield Case("png-transparency-before-palette", png + parts[0] + trns + b"".join(parts[1:]), want)
    long = chunk(b"tRNS", bytes([0, 90]) + b"\xff" * 300)
    yield Case("png-long-transparency", png + b"".join(parts[:2]) + long + b"".join(parts[2:]), want)
    tiff = exif_tiff(6)
    turned = upright(s, 6)
    for name, extra in (
        ("profile-packed", chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(b"Exif\0\0" + tiff)))),
        ("profile-plain", chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(tiff))),
        ("xmp", chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')),
        ("xmp-packed", chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<tiff:Orientation>6</x>"))),
        ("exif-twice", chunk(b"eXIf", exif_tiff(1)) + chunk(b"eXIf", tiff)),
    ):
        yield Case(f"png-orientation-{name}", png + head + extra + idat + tail, turned)
        yield Case(f"png-orientation-{name}-behind", png + head + idat + extra + tail, turned)
    both = chunk(b"eXIf", exif_tiff(1)) + chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(tiff))
    yield Case("png-orientation-exif-before-profile", png + head + both + idat + tail, s)


def png_defects(good, whole):
    yield Case("png-cut-in-signature", good[:5], error="truncated")
    for fraction in (0.01, 0.3, 0.6, 0.9):
        yield Case(f"png-cut-at-{int(fraction * 100)}%", good[: int(len(good) * fraction)], error="truncated")
    yield Case("png-cut-iend", good[:-12], whole)
    yield Case("png-cut-last-byte", good[:-1], whole)
    for at, kind, length in png_chunks(good):
        if length:
            bad = bytearray(good)
            bad[at + 8 + length // 2] ^= 4
            yield Case(f"png-bit-flip-{kind.decode()}-{at}", bytes(bad), error="corrupt")
    s = photo(20, 20)
    head, tail = chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 20, 8, 2, 0, 0, 0)), chunk(b"IEND", b"")
    body = zlib.compress(packed_rows(s, 8, np.random.default_rng(1)))
    png = PNG_SIGNATURE

    def ihdr(*fields):
        return chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))

    idat = chunk(b"IDAT", body)
    few_rows = zlib.compress(zlib.decompress(body)[:500])
    yield Case("png-no-ihdr", png + idat + tail, error="corrupt")
    yield Case("png-two-ihdr", png + head + head + idat + tail, error="corrupt")
    yield Case("png-no-idat", png + head + tail, error="corrupt")
    yield Case("png-empty-idat", png + head + chunk(b"IDAT", b"") + tail, error="corrupt")
    yield Case("png-few-rows", png + head + chunk(b"IDAT", few_rows) + tail, error="corrupt")
    yield Case("png-cut-deflate", png + head + chunk(b"IDAT", body[: len(body) // 2]) + tail, error="corrupt")
    yield Case("png-not-deflate", png + head + chunk(b"IDAT", b"\x55" * 300) + tail, error="corrupt")
    yield Case("png-bad-filter", png + head + chunk(b"IDAT", zlib.compress(b"\x09" * 1220)) + tail, error="corrupt")
    yield Case("png-zero-width", png + ihdr(0, 20, 8, 2, 0, 0, 0) + idat + tail, error="corrupt")
    yield Case("png-too-wide", png + ihdr(16385, 1, 8, 2, 0, 0, 0) + idat + tail, error="limit_exceeded")
    yield Case("png-huge", png + ihdr(2**32 - 1, 2**31, 8, 2, 0, 0, 0) + idat + tail, error="limit_exceeded")
    yield Case("png-too-many-pixels", png + ihdr(16384, 16384, 8, 2, 0, 0, 0) + idat + tail, error="limit_exceeded")
    yield Case("png-depth-3", png + ihdr(20, 20, 3, 2, 0, 0, 0) + idat + tail, error="corrupt")
    yield Case("png-colour-5", png + ihdr(20, 20, 8, 5, 0, 0, 0) + idat + tail, error="corrupt")
    yield Case("png-palette-missing", png + ihdr(20, 20, 8, 3, 0, 0, 0) + idat + tail, error="corrupt")
    palette = ihdr(20, 20, 8, 3, 0, 0, 0) + chunk(b"PLTE", b"abcd")
    yield Case("png-palette-of-4-bytes", png + palette + idat + tail, error="corrupt")
    yield Case("png-wrong-adler", png + head + chunk(b"IDAT", body[:-4] + b"\0\0\0\0") + tail, error="corrupt")
    yield Case("png-apple", png + chunk(b"CgBI", b"\0" * 4) + head + idat + tail, error="unsupported")
    bomb = zlib.compress(b"\0" * (200 << 20), 9)
    yield Case("png-bomb", png + head + chunk(b"IDAT", bomb) + tail, error="limit_exceeded")


# ---- JPEG ------------------------------------------------------------------------------------------------------------


def exif_tiff(orientation, big=False, kind=3):
    e = ">" if big else "<"
    value = struct.pack(e + ("HH" if kind == 3 else "I"), *((orientation, 0) if kind == 3 else (orientation,)))
    maker = struct.pack(e + "HHI", 0x010F, 2, 4) + b"cam\0"  # another tag in front
    entry = struct.pack(e + "HHI", 0x0112, kind, 1) + value
    return (b"MM\0*" if big else b"II*\0") + struct.pack(e + "IH", 8, 2) + maker + entry + b"\0" * 4


def upright(pixels, orientation):
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def encode_jpeg(image, **options):
    out = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(out, "JPEG", **{"quality": 90, **options})
    return out.getvalue()


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def jpeg_segments(data):
    """(offset, marker, length with its two bytes, or 0) up to the first scan's data."""
    at = 2
    while True:
        marker = data[at + 1]
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield at, marker, length
        if marker == 0xDA:
            return
        at += 2 + length


def offset_of(data, marker):
    return next(at for at, m, _ in jpeg_segments(data) if m == marker)


def patched(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def jpeg_cases():
    s = photo()
    for w, h in ((61, 47), (1, 1), (16, 16), (17, 1), (5, 33)):  # libjpeg smooths no chroma below 3 samples
        p = photo(w, h)
        for name, image in (("rgb", Image.fromarray(p)), ("grey", Image.fromarray(p[..., 0]))):
            for progressive in (False, True):
                for sampling in (0, 1, 2) if name == "rgb" else (-1,):
                    data = encode_jpeg(image, progressive=progressive, subsampling=sampling)
                    kind = "progressive" if progressive else "baseline"
                    tail = f"-{('444', '422', '420')[sampling]}" if sampling >= 0 else ""
                    # stb_image swaps the two chroma weights of the last pair of columns where only the width is halved.
                    edge = 2 if sampling == 1 and w > 2 else 0
                    yield Case(f"jpeg-{name}-{kind}{tail}-{w}x{h}", data, decoded(data), lossy=True, edge=edge)
    for quality in (5, 50, 100):
        data = encode_jpeg(s, quality=quality, optimize=True)
        yield Case(f"jpeg-quality-{quality}", data, decoded(data), lossy=True)
    for rows in (1, 2):
        data = encode_jpeg(s, restart_marker_rows=rows)
        yield Case(f"jpeg-restart-{rows}", data, decoded(data), lossy=True)
        last = data.rindex(b"\xff" + bytes([0xD0 + data.count(b"\xff\xd0") - 1]))
        without = data[:last] + data[last + 2 :]
        yield Case(f"jpeg-restart-{rows}-one-missing", without, error="corrupt")
    good = encode_jpeg(s)
    want = decoded(good)
    yield Case("jpeg-trailing-bytes", good + b"\0garbage\xff\xd8" * 20, want, lossy=True)
    yield Case("jpeg-fill-bytes", good[:2] + b"\xff\xff\xff" + good[2:], want, lossy=True)
    yield Case("jpeg-comment", encode_jpeg(s, comment=b"\xff\xd9 not the end"), want, lossy=True)
    yield Case("jpeg-adobe-rgb", *adobe_rgb(s), lossy=True)
    for transform, name in ((0, "cmyk"), (2, "ycck")):
        data = encode_jpeg(Image.fromarray(np.dstack([s, 255 - s[..., 0] // 3]), "CMYK"))
        data = patched(data, offset_of(data, 0xEE) + 15, bytes([transform]))
        yield Case(f"jpeg-{name}", data, decoded(data), lossy=True)
    at = offset_of(data, 0xEE)
    yield Case("jpeg-four-channels-unnamed", patched(data, at + 1, b"\xed"), error="unsupported")
    for big in (False, True):
        for orientation in range(1, 9):
            app1 = b"Exif\0\0" + exif_tiff(orientation, big, 4 if orientation == 7 else 3)
            data = good[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + good[2:]
            yield Case(f"jpeg-exif-{orientation}-{'MM' if big else 'II'}", data, upright(want, orientation), lossy=True)
    tiff = exif_tiff(6)
    for name, garbage in (
        ("empty", b""),
        ("half", tiff[:13]),
        ("far", tiff[:4] + b"\xff\xff\xff\xff" + tiff[8:]),
        ("many", tiff[:8] + b"\xff\xff" + tiff[10:22]),
        ("value-9", exif_tiff(9)),
        ("value-0", exif_tiff(0)),
        ("noise", bytes(range(200))),
    ):
        app1 = b"Exif\0\0" + garbage
        data = good[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + good[2:]
        yield Case(f"jpeg-exif-garbage-{name}", data, want, lossy=True)
    yield from jpeg_oddities(s, good, want)
    yield from jpeg_defects(good, encode_jpeg(s, progressive=True), want)


def jpeg_parts(data):
    """[(marker, body)] up to the first scan's header, and what follows it."""
    parts = []
    for at, marker, length in jpeg_segments(data):
        parts.append((marker, data[at + 4 : at + 2 + length]))
    return parts, data[at + 2 + length :]


def jpeg_of(parts, rest, between=b""):
    segments = (b"\xff" + bytes([m]) + struct.pack(">H", len(body) + 2) + body for m, body in parts)
    return b"\xff\xd8" + between.join(segments) + rest


def before_restarts(data, junk):
    out = bytearray()
    for i, byte in enumerate(data):
        if byte == 0xFF and 0xD0 <= data[i + 1] <= 0xD7:
            out += junk
        out.append(byte)
    return bytes(out)


def separate_scans(s):
    """One scan a channel, not interleaved: three grey pictures' data in one file."""
    planes = Image.fromarray(s).convert("YCbCr").split()
    parts, rest = jpeg_parts(encode_jpeg(planes[0]))
    frame = next(body for marker, body in parts if marker == 0xC0)
    frame = frame[:5] + b"\3" + b"".join(bytes([i, 0x11, 0]) for i in (1, 2, 3))
    out = [(m, frame if m == 0xC0 else body) for m, body in parts if m in (0xDB, 0xC0)]
    data = jpeg_of(out, b"")
    for i, plane in enumerate(planes, 1):
        parts, rest = jpeg_parts(encode_jpeg(plane, optimize=True))
        tables = [(m, body) for m, body in parts if m == 0xC4]
        data += jpeg_of(tables + [(0xDA, bytes([1, i, 0, 0, 63, 0]))], rest[:-2])[2:]
    return data + b"\xff\xd9"


def jpeg_oddities(s, good, want):
    """Whole pictures as drones, scanners, webcams and editors write them, and parts of pictures that claim to be whole."""
    parts, rest = jpeg_parts(good)
    coded, end = rest[:-2], b"\xff\xd9"

    def shown(name, data, pixels=want, edge=0):
        return Case(f"jpeg-{name}", data, pixels, lossy=True, edge=edge)

    for name, tail in (
        ("junk", bytes(range(1, 200))),
        ("stuffed", b"\x12\x34\xff\0\x56\xff\0\0"),
        ("zeros", b"\0" * 4096),
        ("restart", b"\xff\xd0"),
        ("junk-restart-junk", b"\0" * 64 + b"\xff\xd1" + b"\5" * 64),
        ("fill", b"\xff\xff\xff"),
    ):
        yield shown(f"tail-{name}", jpeg_of(parts, coded + tail + end))
        yield Case(f"jpeg-half-tail-{name}", jpeg_of(parts, coded[: len(coded) // 2] + tail + end), error="corrupt")
    yield shown("tail-zeros-without-end", jpeg_of(parts, coded + b"\0" * 4096))  # every block is there: as Pillow shows it
    for interval in (1, 2):
        head, data = jpeg_parts(encode_jpeg(s, restart_marker_blocks=interval))
        for name, junk in (("2", b"\0\0"), ("12", b"\0" * 12), ("600", b"\x5a" * 600), ("fill", b"\xff\xff")):
            yield shown(f"restart-{interval}-bytes-before-{name}", jpeg_of(head, before_restarts(data, junk)))
        markers = [i for i in range(len(data) - 1) if data[i] == 0xFF and 0xD0 <= data[i + 1] <= 0xD7]
        for at in (1, len(markers) // 2):
            lost = data[: markers[at]] + data[markers[at + 1] :]
            yield Case(f"jpeg-restart-{interval}-lost-{at}", jpeg_of(head, lost), error="corrupt")
            short = data[: markers[at] - 1] + data[markers[at] :]
            if interval == 2:
                yield Case(f"jpeg-restart-{interval}-short-{at}", jpeg_of(head, short), error="corrupt")
    interval = [(0xDD, struct.pack(">H", 4))]
    yield Case("jpeg-interval-without-markers", jpeg_of(interval + parts, rest), error="corrupt")
    yield shown("interval-longer-than-picture", jpeg_of([(0xDD, b"\xff\xff")] + parts, rest))
    bare = [(m, body) for m, body in parts if m not in (0xC4, 0xE0)]
    yield shown("no-huffman-tables", jpeg_of(bare, rest))
    yield shown("mjpeg", jpeg_of([(0xE0, b"AVI1" + b"\0" * 10)] + bare, rest))
    yield shown("no-huffman-tables-422", *mjpeg_422(s), edge=2)
    yield shown("junk-between-segments", jpeg_of(parts, rest, b"\0\1\2"))
    frame_first = sorted(parts, key=lambda p: (p[0] != 0xE0, p[0] != 0xC0, p[0] == 0xDA))
    unknown = [(0xE3, b"a" * 50), (0xFE, b"b" * 50), (0xF7, b"c" * 9), (0xDC, struct.pack(">H", s.shape[0]))]
    yield shown("segments-behind-frame", jpeg_of(frame_first[:2] + unknown + frame_first[2:], rest))
    yield shown("empty-tables", jpeg_of(parts[:-1] + [(0xC4, b""), (0xDB, b"")] + parts[-1:], rest))

    def named(letters, markers=parts):
        out = []
        for m, body in markers:
            body = bytearray(body)
            for i, letter in enumerate(letters):
                if m == 0xC0:
                    body[6 + 3 * i] = letter
                if m == 0xDA:
                    body[1 + 2 * i] = letter
            out.append((m, bytes(body)))
        return jpeg_of(out, rest)

    no_jfif = [part for part in parts if part[0] != 0xE0]
    for name, data in (
        ("jfif", named(b"RGB")),
        ("unmarked", named(b"RGB", no_jfif)),
        ("adobe-1", named(b"RGB", [(0xEE, b"Adobe\1\x64\0\0\0\0\1")] + no_jfif)),
        ("jfif-adobe-0", named(b"\1\2\3", parts[:1] + [(0xEE, b"Adobe\0\x64\0\0\0\0\0")] + parts[1:])),
        ("ids-0", named(b"\0\1\2", no_jfif)),
        ("same-ids", named(b"\1\1\1")),
    ):
        yield shown(f"channels-{name}", data, decoded(data))
    data = separate_scans(s)
    yield shown("separate-scans", data, decoded(data))
    yield Case("jpeg-separate-scans-one-missing", data[: data.rindex(b"\xff\xda")] + end, error="corrupt")
    for mode, extra in (("rgb", {}), ("rgb-restart", {"restart_marker_rows": 1}), ("grey", {})):
        image = Image.fromarray(photo(90, 70)).convert("L" if mode == "grey" else "RGB")
        data = encode_jpeg(image, progressive=True, **extra)
        scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
        yield shown(f"progressive-{mode}-no-end", data[:-2], decoded(data))
        yield shown(f"progressive-{mode}-tail", data[:-2] + b"\7" * 99 + b"\xff\xd3" + end, decoded(data))
        for i, at in enumerate(scans):
            if i:
                yield Case(f"jpeg-progressive-{mode}-scans-{i}", data[:at] + end, error="corrupt")
            (length,) = struct.unpack_from(">H", data, at + 2)
            begin = at + 2 + length
            stop = next(k for k in range(begin, len(data)) if data[k] == 0xFF and data[k + 1] and not 0xD0 <= data[k + 1] <= 0xD7)
            half = data[: (begin + stop) // 2] + data[stop:]
            yield Case(f"jpeg-progressive-{mode}-half-of-scan-{i}", half, error="corrupt")


def mjpeg_422(s):
    data = encode_jpeg(s, subsampling=1)
    parts, rest = jpeg_parts(data)
    want = decoded(data)
    return jpeg_of([part for part in parts if part[0] not in (0xC4, 0xE0)], rest), want


def adobe_rgb(s):
    """A JPEG of unconverted RGB: libjpeg leaves such files to Adobe's marker with transform 0 and no JFIF marker."""
    data = encode_jpeg(s, subsampling=0)
    at = offset_of(data, 0xE0)
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
    data = data[:at] + adobe + data[at + 18 :]
    return data, decoded(data)


def jpeg_defects(good, progressive, want):
    for name, data in (("baseline", good), ("progressive", progressive)):
        for fraction in (0.002, 0.02, 0.3, 0.6, 0.9):
            yield Case(f"jpeg-{name}-cut-at-{fraction:.1%}", data[: int(len(data) * fraction)], error="truncated")
        yield Case(f"jpeg-{name}-cut-eoi", data[:-2], want, lossy=True)
        zeros = data[: len(data) * 6 // 10].ljust(len(data), b"\0")  # what a full disk or a broken download leaves
        yield Case(f"jpeg-{name}-zeros-behind-60%", zeros, error="truncated")
        scan = offset_of(data, 0xDA)
        (length,) = struct.unpack_from(">H", data, scan + 2)
        yield Case(f"jpeg-{name}-no-scan", data[:scan] + b"\xff\xd9", error="corrupt")
        yield Case(f"jpeg-{name}-empty-scan", data[: scan + 2 + length] + b"\xff\xd9", error="corrupt")
    frame, scan, tables = (offset_of(good, m) for m in (0xC0, 0xDA, 0xC4))
    yield Case("jpeg-two-frames", good[:frame] + good[frame : frame + 19] + good[frame:], error="corrupt")
    yield Case("jpeg-no-frame", good[:frame] + good[frame + 19 :], error="corrupt")
    yield Case("jpeg-no-tables", good[:2] + good[frame : frame + 19] + good[scan:], error="corrupt")
    yield Case("jpeg-12-bit", patched(good, frame + 4, b"\x0c"), error="unsupported")
    yield Case("jpeg-height-0", patched(good, frame + 5, b"\0\0"), error="corrupt")
    yield Case("jpeg-too-wide", patched(good, frame + 7, b"\x40\x01"), error="limit_exceeded")
    yield Case("jpeg-too-many-pixels", patched(good, frame + 5, b"\x40\0\x40\0"), error="limit_exceeded")
    yield Case("jpeg-grown-header", patched(good, frame + 5, b"\x20\0\x20\0"), error="corrupt")
    yield Case("jpeg-two-channels", patched(good, frame + 9, b"\x02"), error="unsupported")
    yield Case("jpeg-sampling-0", patched(good, frame + 11, b"\0"), error="corrupt")
    yield Case("jpeg-sampling-3:2", patched(good, frame + 11, b"\x31\0\x02\x21"), error="unsupported")
    yield Case("jpeg-arithmetic", patched(good, frame + 1, b"\xc9"), error="unsupported")
    yield Case("jpeg-lossless", patched(good, frame + 1, b"\xc3"), error="unsupported")
    yield Case("jpeg-segment-length-1", patched(good, frame + 2, b"\0\x01"), error="corrupt")
    yield Case("jpeg-segment-past-end", patched(good, scan + 2, b"\xff\xff"), error="truncated")
    yield Case("jpeg-unknown-channel", patched(good, scan + 5, b"\x77"), error="corrupt")
    # The first scan is the whole picture, so what follows is not read; progressive files are held to 64 (test_image_scan.cpp).
    yield Case("jpeg-65-scans", good[:scan] + (good[scan:-2]) * 65 + b"\xff\xd9", want, lossy=True)


def other_cases():
    yield Case("empty.jpg", b"", error="truncated")
    yield Case("text.jpg", b"This is not a picture.\n", error="unsupported")
    yield Case("one-byte", b"\xff", error="truncated")
    yield Case("zeros", b"\0" * 4096, error="unsupported")
    for kind in ("GIF", "BMP", "TIFF", "WEBP"):
        out = io.BytesIO()
        try:
            Image.fromarray(photo()).save(out, kind)
        except (KeyError, OSError):
            continue
        yield Case(f"{kind.lower()}-renamed.png", out.getvalue(), error="unsupported")


def cases():
    yield from png_cases()
    yield from jpeg_cases()
    yield from other_cases()


class Tool:
    """Runs facenet_image_tool and speaks its protocol (tests/image_tool.cpp)."""

    def __init__(self, path):
        import subprocess

        self.process = subprocess.Popen([str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line, pixels=None):
        """(a, b, bytes) or the error line as a string."""
        out = self.process.stdin
        out.write(line.encode() + b"\n" + (b"" if pixels is None else np.ascontiguousarray(pixels).tobytes()))
        out.flush()
        answer = self.process.stdout.readline().decode()
        if not answer.startswith("ok "):
            assert answer.startswith("error "), f"the tool ended: {answer!r} for {line}"
            return answer[6:].rstrip("\n")
        a, b, n = (int(v) for v in answer.split()[1:])
        return a, b, self.process.stdout.read(n)

    def decode(self, path):
        got = self.ask(f"decode {path}")
        return got if isinstance(got, str) else np.frombuffer(got[2], np.uint8).reshape(got[1], got[0], 3)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def outcome(case, got):
    """(passed, words) for the table."""
    if isinstance(got, str):
        return bool(case.error) and got.startswith(case.error + " "), got.split(": ", 1)[-1]
    if case.error:
        return False, f"pixels, though {case.error} was due"
    if got.shape != case.pixels.shape:
        return False, f"{got.shape} for {case.pixels.shape}"
    difference = np.abs(got.astype(int) - case.pixels)
    difference = difference[:, : difference.shape[1] - case.edge]
    # One level from the inverse DCT of luma, one more from that and one from the interpolation of chroma, which counts
    # 1.77 times in blue, one from the conversion: 1 + 1.77 * 2 + 1 < 6.
    passed = difference.max() <= 6 and difference.mean() <= 1 if case.lossy else not difference.any()
    return bool(passed), f"largest difference {difference.max()}, mean {difference.mean():.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="folder for the files")
    parser.add_argument("--tool", help="facenet_image_tool: decode every file and print the table")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tool = Tool(args.tool) if args.tool else None
    failed = count = 0
    for case in cases():
        path = args.out / case.name.replace("%", "pc").replace(":", "-")
        path.write_bytes(case.data)
        count += 1
        if tool:
            passed, words = outcome(case, tool.decode(path))
            failed += not passed
            print(f"{'ok  ' if passed else 'FAIL'} {case.name:44} {case.error or 'pixels':14} {words}")
    print(f"{count} files, {failed} failures" if tool else f"{count} files in {args.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
