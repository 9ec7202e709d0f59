from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llava_scissor.config import Config, load_config
from llava_scissor.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path):
    def write_settings(content: str | bytes) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_settings


FULL = """\
# a comment
model:
  path: /models/a=b c
  device: cuda:1
video: {num_frames: 16}
compression:
  retention_ratio: 1e-1
  epsilon: .05
generation:
  do_sample: true
  temperature: 7E-1
"""


def test_a_file_is_read(write) -> None:
    config = load_config(write(FULL))
    assert config.model.path == "/models/a=b c"
    assert config.model.device == "cuda:1"
    assert config.video.num_frames == 16
    assert (config.compression.retention_ratio, config.compression.epsilon) == (0.1, 0.05)
    assert (config.generation.do_sample, config.generation.temperature) == (True, 0.7)


@pytest.mark.parametrize(
    "content",
    ["", "\n", "# nothing\n", "---\n", "---\n...\n", "null", "{}", "compression:\n", "model: ~\nvideo: {}\n"],
)
def test_what_is_not_there_is_the_default(write, content: str) -> None:
    assert load_config(write(content)) == Config() == load_config(None)


def test_a_path_may_be_text(write) -> None:
    assert load_config(str(write(FULL))) == load_config(write(FULL))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E-3", 1e-3), ("1.e-3", 1e-3), (".5", 0.5), ("+0.5", 0.5), ("1", 1.0), ("5e-01", 0.5)],
)
def test_numbers(write, text: str, value: float) -> None:
    assert load_config(write(f"compression: {{tau: {text}}}")).compression.tau == value
    assert load_config(None, [f"compression.tau={text}"]).compression.tau == value


@pytest.mark.parametrize(
    "text", ["2024-99-99", "0x_", "0b_", "12:30", "yes", "off", "9" * 5000, "'8'", "010"]
)
def test_only_plain_numbers_booleans_and_null_are_not_text(write, text: str) -> None:
    assert load_config(write(f"model: {{path: {text}}}")).model.path == text.strip("'")


def test_a_byte_order_mark_is_skipped(write) -> None:
    assert load_config(write(b"\xef\xbb\xbfcompression:\r\n  tau: 0.5\r\n")).compression.tau == 0.5


def test_a_repeated_plain_value_is_allowed(write) -> None:
    config = load_config(
        write("compression: {epsilon: 0.1, seed: &seed 7}\ngeneration: {do_sample: true, seed: *seed}")
    )
    assert config.compression.seed == config.generation.seed == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "compression:\n  tau: 1.7\n",
            "compression.tau (FILE, line 2): got 1.7, expected a number from -1 to 1",
        ),
        (
            "compression:\n  retention_ratio: 0\n",
            "compression.retention_ratio (FILE, line 2): got 0, expected a number above 0 and at most 1",
        ),
        (
            "compression:\n  tua: 0.5\n",
            "compression.tua (FILE, line 2): unknown key, did you mean 'tau'? The keys of compression",
        ),
        (
            "\ncompresion: {}\n",
            "compresion (FILE, line 2): unknown section, did you mean 'compression'? The sections are model, "
            "video, compression, generation",
        ),
        ("retention: 0.1", "retention (FILE, line 1): unknown section, did you mean"),
        ("tau: 0.5", "tau (FILE, line 1): unknown section, did you mean 'compression.tau'?"),
        ("1: 2", "1 (FILE, line 1): unknown section"),
        ("~: 2", "~ (FILE, line 1): unknown section"),
        (
            "compression: {epsilon: 0.05,\n  sample_size: 10}",
            "compression.epsilon (FILE, line 1) and compression.sample_size (FILE, line 2): got 0.05 and 10, "
            "expected only one of the two",
        ),
        (
            "compression: {method: random}",
            "compression.retention_ratio: missing, which method 'random' needs: expected a number above 0",
        ),
        ("compression: 5", "compression (FILE, line 1): got 5, expected a mapping with the key method"),
        (
            "compression: [tau]",
            "compression (FILE, line 1): got a list, expected a mapping with the key method",
        ),
        ("compression: {tau: {a: 1}}", "compression.tau (FILE, line 1): got a mapping, expected a number"),
        (
            "generation: {do_sample: 'false'}",
            "generation.do_sample (FILE, line 1): got the text 'false', expected",
        ),
        (
            "generation: {do_sample: no}",
            "generation.do_sample (FILE, line 1): got the text 'no', expected true",
        ),
        (
            "generation: {seed: 010}",
            "generation.seed (FILE, line 1): got the text '010', expected an integer",
        ),
        (
            "compression: {tau: .inf}",
            "compression.tau (FILE, line 1): got the text '.inf', expected a number",
        ),
        ("compression: {tau: 1e999}", "compression.tau (FILE, line 1): got inf, expected a number"),
        (
            "compression: {sample_size: 1e3}",
            "compression.sample_size (FILE, line 1): got 1000.0, expected an int",
        ),
        ("5", "FILE: got 5, expected a mapping with the sections model, video, compression, generation"),
        ("- model", "FILE: got a list, expected a mapping with the sections model"),
        ("hello", "FILE: got the text 'hello', expected a mapping with the sections model"),
        ("false", "FILE: got false, expected a mapping with the sections model"),
        (
            "video: {}\nmodel: {}\nvideo: {}\n",
            "FILE, line 3, column 1: not valid YAML: the key 'video' is there twice, first on line 1",
        ),
        (
            "compression: {tau: .1, 'tau': .2}",
            "FILE, line 1, column 24: not valid YAML: the key 'tau' is there twice, first on line 1",
        ),
        (
            "compression:\n\ttau: 3",
            r"FILE, line 2, column 1: not valid YAML: found character '\t' that cannot",
        ),
        ("model: {path: 'a", "FILE, line 1, column 17: not valid YAML: found unexpected end of stream"),
        ("model: {}}", "FILE, line 1, column 10: not valid YAML: "),
        ("a: b: c", "FILE, line 1, column 5: not valid YAML: mapping values are not allowed here"),
        (
            "---\nmodel: {}\n---\nvideo: {}",
            "FILE, line 3, column 1: not valid YAML: but found another document",
        ),
        (
            "a: !!python/object/apply:os.system [ls]",
            "FILE, line 1, column 4: not valid YAML: tags (!name) are not",
        ),
        ("model: !!map {}", "FILE, line 1, column 8: not valid YAML: tags (!name) are not allowed"),
        (
            "generation: {seed: !!int x}",
            "FILE, line 1, column 20: not valid YAML: tags (!name) are not allowed",
        ),
        ("a: &a [*a]", "FILE, line 1, column 8: not valid YAML: *a repeats a collection: write it out"),
        ("a: &a {x: 1}\n<<: *a", "FILE, line 2, column 5: not valid YAML: *a repeats a collection"),
        ("<<: {tau: 1}", "<< (FILE, line 1): unknown section"),
        ("a: *b", "FILE, line 1, column 4: not valid YAML: found undefined alias"),
        ("? [a]\n: 3", "FILE, line 1, column 3: not valid YAML: a key must be plain text"),
        ("%YAML 3.0\n---\na: 1", "FILE, line 1, column 1: not valid YAML: found incompatible YAML document"),
        ("[" * 100_000, "FILE, line 1, column 21: not valid YAML: nested more than 20 levels deep"),
        ("{a: " * 100_000, "FILE, line 1, column 78: not valid YAML: nested more than 20 levels deep"),
        ("model: {path: a\0b}", "FILE: not valid YAML: unacceptable character #x0000"),
        (b"model: {path: \xff}", "FILE: not UTF-8 text (byte 14): save it as UTF-8"),
        ("a".encode("utf-16"), "FILE: not UTF-8 text (byte 0): save it as UTF-8"),
        ("#" * (2**20 + 1), "FILE: larger than 1 MiB, which no settings file is"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_file_is_explained(write, content: str | bytes, message: str) -> None:
    path = write(content)
    with pytest.raises(ConfigError, match="^" + re.escape(message.replace("FILE", str(path)))):
        load_config(path)


def test_a_thousandfold_alias_is_refused(write) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match=r"\*a0 repeats a collection"):
        load_config(write("\n".join(lines)))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.yaml", "missing.yaml: cannot read the settings: No such file or directory"),
        (".", r"\.: cannot read the settings: Is a directory"),
        ("a\0b", r"'a\\x00b': not a file name"),
        ("x" * 5000, "cannot read the settings: File name too long"),
        ("/dev/zero", "/dev/zero: larger than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_read(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_overrides_win_over_the_file_and_the_last_one_wins(write) -> None:
    path = write("compression: {tau: 0.5, epsilon: 0.1}\n")
    overrides = [
        "compression.tau=0.6",
        "compression.epsilon=null",
        "compression.tau=0.7",
        "video.num_frames=4",
    ]
    config = load_config(path, overrides)
    assert (config.compression.tau, config.compression.epsilon, config.video.num_frames) == (0.7, None, 4)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("model.path=a=b", "a=b"),
        ('model.path="8"', "8"),
        (" model.path = some where ", "some where"),
        ("model.path=none", "none"),
        ("model.path=C:\\models", "C:\\models"),
    ],
)
def test_override_values_are_yaml(override: str, value: str) -> None:
    assert load_config(None, [override]).model.path == value


def test_an_empty_override_value_is_null(write) -> None:
    assert load_config(write("compression: {tau: 0.5}"), ["compression.tau="]).compression.tau is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tau=0.5", "--set tau=0.5: expected section.key=value, for example compression.tau=0.5"),
        (
            "retention=.1",
            "--set retention=.1: expected section.key=value, for example compression.retention_ratio=.1",
        ),
        (
            "compression.tau",
            "--set compression.tau: expected section.key=value, for example compression.tau=0.1",
        ),
        ("a.b.c=1", "--set a.b.c=1: expected section.key=value, for example compression.retention_ratio=1"),
        ("compression.=1", "--set compression.=1: expected section.key=value"),
        (".tau=1", "--set .tau=1: expected section.key=value"),
        ("=1", "--set =1: expected section.key=value"),
        ("", "--set : expected section.key=value"),
        ("compression.tau=[1", "--set compression.tau=[1: the value is not valid YAML: expected ',' or ']'"),
        ("compression.tau=a: b: c", "the value is not valid YAML: mapping values are not allowed here"),
        (
            "compression.tau=1.7",
            "compression.tau (--set compression.tau=1.7): got 1.7, expected a number from -1",
        ),
        ("compression.tau={a: 1}", "compression.tau (--set compression.tau={a: 1}): got a mapping, expected"),
        (
            "video.num_frame=3",
            "video.num_frame (--set video.num_frame=3): unknown key, did you mean 'num_frames'?",
        ),
        ("vidoe.num_frames=3", "vidoe (--set vidoe.num_frames=3): unknown section, did you mean 'video'?"),
        ("model.path=123", "model.path (--set model.path=123): got 123, expected text that is not empty"),
    ],
)
def test_a_bad_override_is_explained(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(None, [override])


def test_a_conflict_names_both_origins(write) -> None:
    path = write("compression:\n  epsilon: 0.05\n")
    override = "compression.sample_size=10"
    message = (
        f"compression.epsilon ({path}, line 2) and compression.sample_size (--set {override}): got 0.05 "
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(path, [override])


def test_an_override_of_a_section_that_is_no_mapping(write) -> None:
    path = write("compression: 5")
    message = f"compression ({path}, line 1): got 5, expected a mapping"
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(path, ["compression.tau=0.5"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    content=st.one_of(
        st.binary(max_size=60), st.text("{}[]:,-&*!|>'\"%@`#? \n\tab01.~<", max_size=40).map(str.encode)
    )
)
def test_any_bytes_are_settings_or_a_config_error(write, content: bytes) -> None:
    with contextlib.suppress(ConfigError):
        assert load_config(write(content)) == Config()
