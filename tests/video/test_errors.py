"""Sources that are no video: a `VideoError` that says what was found, whatever the decoder."""

from __future__ import annotations

import os
import struct
import sys

import av
import numpy as np
import pytest
from PIL import Image

from llava_scissor.errors import InputError, MissingDependencyError, VideoError
from llava_scissor.video import read_video
from tests.video.clips import Recipe
from tests.video.conftest import write_sound

BOTH = ("pyav", "decord")


@pytest.fixture(params=BOTH)
def decoder(request) -> str:
    return request.param


def test_missing_file(tmp_path, decoder):
    with pytest.raises(VideoError, match=r"There is no file .*nowhere\.mp4\. Check the path"):
        read_video(tmp_path / "nowhere.mp4", 8, decoder)


def test_directory(tmp_path, decoder):
    with pytest.raises(VideoError, match=r"is a directory\. Give the path of one video file"):
        read_video(tmp_path, 8, decoder)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs a device file")
def test_device(decoder):
    with pytest.raises(VideoError, match="/dev/zero is a device, pipe or socket"):
        read_video("/dev/zero", 8, decoder)


@pytest.mark.parametrize("name", ["a\0b.mp4", "x" * 5000])
def test_impossible_path(name, decoder):
    with pytest.raises(VideoError, match=r"cannot be read: .* Give a readable video file"):
        read_video(name, 8, decoder)


def test_empty_file(tmp_path, decoder):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4 is empty \(0 bytes\)"):
        read_video(tmp_path / "empty.mp4", 8, decoder)


def test_empty_bytes(decoder):
    with pytest.raises(VideoError, match="video of 0 bytes in memory is empty"):
        read_video(b"", 8, decoder)


TEXTS = {
    "prose": b"This is not a video. " * 20,
    "unicode": "Das ist kein Film, sondern ein Text über Flüße. ".encode() * 20,
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n/etc/other.ts\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile 'other.mp4'\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("suffix", ["mp4", "txt", "m3u8"])
def test_text(tmp_path, decoder, text, suffix):
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(text)
    for source in (path, text):
        with pytest.raises(VideoError, match=rf"\({len(text):,} bytes\) is text, not a video"):
            read_video(source, 8, decoder)


def test_text_that_is_cut_within_a_character(tmp_path):
    (tmp_path / "file.mp4").write_bytes(b"a" + "é".encode() * 100)
    with pytest.raises(VideoError, match="is text, not a video"):
        read_video(tmp_path / "file.mp4", 8)


@pytest.mark.parametrize("first_line", [b"ffconcat version 1.0", b"#EXTM3U"])
def test_a_playlist_with_control_characters_opens_no_other_file(mp4, monkeypatch, decoder, first_line):
    monkeypatch.chdir(mp4.parent)
    with pytest.raises(VideoError, match="is text, not a video"):
        read_video(first_line + b"\n#\x01\nfile " + mp4.name.encode(), 8, decoder)


def test_a_stream_description_opens_no_connection():
    address = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=\x01\nc=IN IP4 127.0.0.1\nt=0 0\n"
    media = b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    with pytest.raises(VideoError, match="cannot be read as a video"):
        read_video(address + media, 8)


def test_terminal_art_is_no_video(tmp_path):
    path = tmp_path / "art.ans"
    path.write_bytes(b"\x1b[31mred\x1b[0m\r\n" * 50)
    with pytest.raises(VideoError, match="holds no moving pictures"):
        read_video(path, 8)


@pytest.mark.parametrize(
    "content", [bytes(5000), np.random.default_rng(0).bytes(5000)], ids=["zeros", "random"]
)
def test_no_video_data(tmp_path, content):
    path = tmp_path / "noise.mp4"
    path.write_bytes(content)
    with pytest.raises(
        VideoError, match=r"noise\.mp4 \(5,000 bytes, unknown data\) cannot be read as a video: Inv"
    ):
        read_video(path, 8)
    with pytest.raises(VideoError, match=r"unknown data.* cannot be read with decord"):
        read_video(path, 8, "decord")


def test_mp4_without_its_index(mp4, tmp_path):
    content = mp4.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(VideoError, match=r"MP4 or MOV\) cannot be read as a video.*cut off before its index"):
        read_video(path, 8)
    with pytest.raises(VideoError, match=r"MP4 or MOV\) cannot be read with decord"):
        read_video(path, 8, "decord")


def test_sound_without_pictures(audio_only):
    with pytest.raises(VideoError, match=r"holds no moving pictures \(streams: audio\)"):
        read_video(audio_only, 8)
    with pytest.raises(VideoError, match="cannot be read with decord"):
        read_video(audio_only, 8, "decord")


def test_sound_with_a_cover_picture(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "cover.jpg")
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet((tmp_path / "cover.jpg").read_bytes())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        write_sound(container, codec="libmp3lame", before_sound=[packet])
    with pytest.raises(VideoError, match="holds no moving pictures"):
        read_video(path, 8)


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
def test_still_picture(tmp_path, picture_format):
    Image.new("RGB", (64, 48)).save(tmp_path / f"still.{picture_format}")
    renamed = tmp_path / "still.mp4"
    renamed.write_bytes((tmp_path / f"still.{picture_format}").read_bytes())
    for path in (tmp_path / f"still.{picture_format}", renamed):
        with pytest.raises(VideoError, match="is a still picture, not a video"):
            read_video(path, 8)
        with pytest.raises(VideoError, match="cannot be read with decord"):
            read_video(path, 8, "decord")


def test_video_stream_without_frames(mp4, tmp_path):
    content = mp4.read_bytes()
    for table in (b"stts", b"ctts", b"stsc", b"stss", b"stsz", b"stco"):  # the sample tables, all emptied
        at = content.index(table) + 8
        at += 4 if table == b"stsz" else 0
        content = content[:at] + struct.pack(">I", 0) + content[at + 4 :]
    path = tmp_path / "hollow.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match="has a video stream without a single frame"):
        read_video(path, 8)
    with pytest.raises(VideoError, match="cannot be read with decord"):
        read_video(path, 8, "decord")


def test_unknown_codec(mp4, tmp_path):
    path = tmp_path / "odd.mp4"
    path.write_bytes(mp4.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoError, match=r"has a video codec that is unknown\. Re-encode it"):
        read_video(path, 8)
    with pytest.raises(VideoError, match="cannot be read with decord"):
        read_video(path, 8, "decord")


@pytest.mark.parametrize("recipe", [Recipe("a.gif", "gif", "rgb8"), Recipe("a.ts")], ids=["gif", "ts"])
def test_formats_that_decord_does_not_know(clips, recipe):
    with pytest.raises(VideoError, match=r"with decord.*or use decoder='pyav', which knows more formats"):
        read_video(clips(recipe), 8, "decord")


@pytest.mark.parametrize("num_frames", [0, -1, True])
def test_num_frames_below_one(mp4, num_frames):
    with pytest.raises(
        InputError, match=f"num_frames is {num_frames}, but it must be an integer of at least 1"
    ):
        read_video(mp4, num_frames)


def test_unknown_decoder(mp4):
    with pytest.raises(InputError, match=r"no decoder 'opencv'\. Choose one of: pyav, decord"):
        read_video(mp4, 8, "opencv")


def test_decord_is_not_installed(mp4, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'llava-scissor\[decord\]'"):
        read_video(mp4, 8, "decord")
